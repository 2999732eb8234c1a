package nova

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) aggregateRoutes(route adder) {
	route(http.MethodGet, "/os-aggregates", api.Admin, 1, d.listAggregates)
	route(http.MethodPost, "/os-aggregates", api.Admin, 1, d.createAggregate)
	route(http.MethodGet, "/os-aggregates/{number}", api.Admin, 1, d.showAggregate)
	route(http.MethodPut, "/os-aggregates/{number}", api.Admin, 1, d.updateAggregate)
	route(http.MethodDelete, "/os-aggregates/{number}", api.Admin, 1, d.deleteAggregate)
	route(http.MethodPost, "/os-aggregates/{number}/action", api.Admin, 1, d.actOnAggregate)
	route(http.MethodPost, "/os-aggregates/{number}/images", api.Admin, 81, d.cacheImages)
}

// zoneRE is what a zone may be called: Nova keeps colons for zone:host.
var (
	zoneRE      = regexp.MustCompile(`^[^:\x00-\x1f]+$`)
	aggregateRE = regexp.MustCompile(`^\S(.*\S)?$`)
)

func aggregateOf(c *api.Context, r store.Reader, a *model.Aggregate) object {
	hosts := []string{}
	for _, id := range a.Hosts {
		if h, ok := store.Hosts.Get(r, id); ok {
			hosts = append(hosts, h.Name)
		}
	}
	slices.Sort(hosts)
	meta := maps.Clone(orEmpty(a.Metadata))
	o := object{"id": a.Number, "name": a.Name, "availability_zone": nil, "hosts": hosts, "metadata": meta,
		"created_at": micros(a.CreatedAt), "updated_at": nil, "deleted": false, "deleted_at": nil}
	if a.Zone != "" {
		o["availability_zone"], meta["availability_zone"] = a.Zone, a.Zone
	}
	if !a.UpdatedAt.IsZero() {
		o["updated_at"] = micros(a.UpdatedAt)
	}
	if at(c, 41) {
		o["uuid"] = a.ID
	}
	return o
}

func (d *dialect) listAggregates(c *api.Context) error {
	snap := c.Snapshot()
	out := []object{}
	for _, a := range slices.SortedFunc(store.Aggregates.All(snap), func(a, b *model.Aggregate) int { return cmp.Compare(a.Number, b.Number) }) {
		out = append(out, aggregateOf(c, snap, a))
	}
	return c.JSON(http.StatusOK, object{"aggregates": out})
}

// numberOf gives the aggregate that the path names.
func numberOf(c *api.Context) (string, error) {
	n := c.Param("number")
	if _, err := strconv.ParseInt(n, 10, 32); err != nil {
		return "", badRequest("Invalid input for field/attribute id. Value: %s. It is no integer.", api.Clip(n))
	}
	return n, nil
}

func (d *dialect) showAggregate(c *api.Context) error {
	n, err := numberOf(c)
	if err != nil {
		return err
	}
	snap := c.Snapshot()
	a, err := compute.GetAggregate(snap, n)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"aggregate": aggregateOf(c, snap, a)})
}

// aggregate answers with what f makes of an aggregate.
func (d *dialect) aggregate(c *api.Context, f func(*store.Tx) (*model.Aggregate, error)) error {
	var a *model.Aggregate
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		a, err = f(tx)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"aggregate": aggregateOf(c, c.Snapshot(), a)})
}

func (d *dialect) createAggregate(c *api.Context) error {
	body, err := decode(c, exactly(members{"aggregate": exactly(members{
		"name": matching(aggregateRE, 1, 255), "availability_zone": nullOr(matching(zoneRE, 1, 255)),
	}, "name")}, "aggregate"))
	if err != nil {
		return err
	}
	o := body["aggregate"].(object)
	var a *model.Aggregate
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		a, err = d.c.CreateAggregate(tx, str(o, "name"), str(o, "availability_zone"))
		return err
	}); err != nil {
		return err
	}
	shown := aggregateOf(c, c.Snapshot(), a)
	delete(shown, "hosts") // as Nova answers this one request
	delete(shown, "metadata")
	return c.JSON(http.StatusOK, object{"aggregate": shown})
}

func (d *dialect) updateAggregate(c *api.Context) error {
	n, err := numberOf(c)
	if err != nil {
		return err
	}
	body, err := decode(c, exactly(members{"aggregate": exactly(members{
		"name": matching(aggregateRE, 1, 255), "availability_zone": nullOr(matching(zoneRE, 1, 255)),
	})}, "aggregate"))
	if err != nil {
		return err
	}
	o := body["aggregate"].(object)
	if len(o) == 0 {
		return badRequest("Invalid input for field/attribute aggregate. Value: {}. {} should be non-empty")
	}
	var name, zone *string
	for k, dst := range map[string]**string{"name": &name, "availability_zone": &zone} {
		if _, given := o[k]; given {
			v := str(o, k)
			*dst = &v
		}
	}
	return d.aggregate(c, func(tx *store.Tx) (*model.Aggregate, error) { return d.c.UpdateAggregate(tx, n, name, zone) })
}

func (d *dialect) deleteAggregate(c *api.Context) error {
	n, err := numberOf(c)
	if err != nil {
		return err
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.DeleteAggregate(tx, n) }); err != nil {
		return err
	}
	return c.Empty(http.StatusOK)
}

func (d *dialect) actOnAggregate(c *api.Context) error {
	n, err := numberOf(c)
	if err != nil {
		return err
	}
	host := exactly(members{"host": text(1, 255)}, "host")
	body, err := decode(c, exactly(members{"add_host": host, "remove_host": host,
		"set_metadata": exactly(members{"metadata": nullableItems}, "metadata")}))
	if err != nil {
		return err
	}
	if len(body) != 1 {
		return badRequest("Malformed request body: an action is an object with one member.")
	}
	if o, ok := body["set_metadata"].(object); ok {
		items := map[string]*string{}
		for k, v := range o["metadata"].(object) {
			if s, is := v.(string); is {
				items[k] = &s
			} else {
				items[k] = nil
			}
		}
		return d.aggregate(c, func(tx *store.Tx) (*model.Aggregate, error) { return d.c.SetAggregateMetadata(tx, n, items) })
	}
	if o, ok := body["add_host"].(object); ok {
		return d.aggregate(c, func(tx *store.Tx) (*model.Aggregate, error) { return d.c.AddAggregateHost(tx, n, str(o, "host")) })
	}
	o := body["remove_host"].(object)
	return d.aggregate(c, func(tx *store.Tx) (*model.Aggregate, error) { return d.c.RemoveAggregateHost(tx, n, str(o, "host")) })
}

// cacheImages has the hosts of an aggregate fetch images before a server is made of them. As in Nova what a host makes of that is its own,
// and only its log tells.
func (d *dialect) cacheImages(c *api.Context) error {
	n, err := numberOf(c)
	if err != nil {
		return err
	}
	body, err := decode(c, exactly(members{"cache": list(exactly(members{"id": uuid}, "id"), 1, 255)}, "cache"))
	if err != nil {
		return err
	}
	snap := c.Snapshot()
	a, err := compute.GetAggregate(snap, n)
	if err != nil {
		return err
	}
	var q model.CacheQuery
	for _, x := range body["cache"].([]any) {
		img, err := d.img.Bootable(snap, images.Caller{ProjectID: c.Caller.ProjectID, Admin: true}, str(x.(object), "id"))
		if err != nil {
			return asInvalid(err)
		}
		if slices.ContainsFunc(q.Images, func(i model.ImageCopy) bool { return i.ImageID == img.ID }) {
			return badRequest("Duplicate images in request")
		}
		q.Images = append(q.Images, images.Copy(img))
	}
	question, err := json.Marshal(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.R.Context(), d.wait)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16) // hosts that are asked at a time
	for _, host := range a.Hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := d.ask.Ask(ctx, host, "cache", question); err != nil {
				c.Log.Warn("a host cannot be asked to fetch images", "host", host, "err", err)
			}
		})
	}
	wg.Wait()
	return c.Empty(http.StatusAccepted)
}

// nullableItems checks metadata in which null takes an item away.
func nullableItems(name string, v any) error {
	o, ok := v.(object)
	if !ok {
		return wrong(name, v, "%s is not of type 'object'", api.Quoted(v))
	}
	kept := object{}
	for k, x := range o {
		if x != nil {
			kept[k] = x
		} else {
			kept[k] = ""
		}
	}
	if z, ok := o["availability_zone"].(string); ok {
		if err := matching(zoneRE, 1, 255)("availability_zone", z); err != nil {
			return err
		}
	}
	return items(name, kept)
}
