package nova

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// maxConsole is how much of a console log is read, in bytes.
const maxConsole = 100 << 10

// action is one of the actions of POST servers/<id>/action.
type action struct {
	// rule is the name of Nova's policy of an action that is for administrators of the cloud; "": any member may.
	rule string
	// from and to bound the microversions 2.from to 2.to that know the action; 0: all.
	from, to int
	// check is the schema of the action's value in the request's microversion; nil: anything.
	check func(c *api.Context) schema
	// run carries it out. The caller owns the server, and the value is checked.
	run func(c *api.Context, value any) error
}

// adds puts actions into the table.
type adds func(name string, a action)

// actionTable gives every action by its name.
func (d *dialect) actionTable() map[string]action {
	table := map[string]action{}
	add := func(name string, a action) { table[name] = a }
	d.powerActions(add)
	d.diskActions(add)
	d.imageActions(add)
	d.stateActions(add)
	d.consoleActions(add)
	d.moveActions(add)
	d.addressActions(add)
	return table
}

// act serves POST servers/<id>/action: the body's one member says what is to be done.
func (d *dialect) act(c *api.Context) error {
	body, err := decode(c, func(name string, v any) error {
		o, ok := v.(object)
		if !ok || len(o) != 1 {
			return badRequest("Malformed request body: an action is an object with one member.")
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := slices.Collect(maps.Keys(body))[0]
	// Whose server it is comes before what may be done with it.
	if _, err := compute.Get(c.Snapshot(), scope(c), c.Param("id")); err != nil {
		return err
	}
	a, ok := d.actions[name]
	switch {
	case !ok:
		return badRequest("There is no such action: %s", api.Clip(name))
	case a.from > 0 && !at(c, a.from), a.to > 0 && at(c, a.to+1):
		return fault.New(fault.NotFound, "API version %s is not supported on this method.", c.Version)
	case a.rule != "" && !c.Caller.CloudAdmin:
		return fault.New(fault.Forbidden, "Policy doesn't allow %s to be performed.", a.rule)
	}
	if a.check != nil {
		if err := exactly(members{name: a.check(c)}, name)("", body); err != nil {
			return err
		}
	}
	return a.run(c, body[name])
}

// change runs a transaction of an action and answers 202 without a body.
func change(c *api.Context, f func(tx *store.Tx) error) error {
	if _, err := c.Store().Update(c.R.Context(), f); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}

// plainly makes an action of one of compute's that takes nothing but the server.
func plainly(f func(*store.Tx, compute.Scope, model.ID) (*model.Server, error)) action {
	return action{run: func(c *api.Context, _ any) error {
		return change(c, func(tx *store.Tx) error {
			_, err := f(tx, scope(c), c.Param("id"))
			return err
		})
	}}
}

// always is a schema that is the same in every microversion.
func always(s schema) func(*api.Context) schema { return func(*api.Context) schema { return s } }

// powerActions are those that change nothing but what runs, and who may change it.
func (d *dialect) powerActions(add adds) {
	for name, f := range map[string]func(*store.Tx, compute.Scope, model.ID) (*model.Server, error){
		"os-start": d.c.Start, "os-stop": d.c.Stop, "pause": d.c.Pause, "unpause": d.c.Unpause, "suspend": d.c.Suspend, "resume": d.c.Resume,
		"unlock": d.c.Unlock,
	} {
		add(name, plainly(f))
	}
	add("reboot", action{
		check: always(exactly(members{"type": oneOf("HARD", "Hard", "hard", "SOFT", "Soft", "soft")}, "type")),
		run: func(c *api.Context, v any) error {
			hard := strings.EqualFold(str(v.(object), "type"), "hard")
			return change(c, func(tx *store.Tx) error {
				_, err := d.c.Reboot(tx, scope(c), c.Param("id"), compute.Hard(hard))
				return err
			})
		},
	})
	add("lock", action{
		check: func(c *api.Context) schema {
			if !at(c, 73) {
				return anything
			}
			return nullOr(exactly(members{"locked_reason": text(1, 255)}))
		},
		run: func(c *api.Context, v any) error {
			reason := ""
			if o, ok := v.(object); ok && at(c, 73) {
				reason = str(o, "locked_reason")
			}
			return change(c, func(tx *store.Tx) error {
				_, err := d.c.Lock(tx, scope(c), c.Param("id"), reason)
				return err
			})
		},
	})
	length := either(nullOr(integer(-1, 1<<31)), func(name string, v any) error {
		if s, ok := v.(string); ok && s == "" {
			return nil
		}
		return wrong(name, v, "%s is not of type 'integer'", api.Quoted(v))
	})
	add("os-getConsoleOutput", action{
		check: always(nullOr(exactly(members{"length": length}))),
		run: func(c *api.Context, v any) error {
			o, _ := v.(object)
			return d.console(c, num(o, "length", -1))
		},
	})
	for _, name := range []string{"addSecurityGroup", "removeSecurityGroup"} {
		add(name, action{
			check: always(exactly(members{"name": text(1, 255)}, "name")),
			run: func(c *api.Context, v any) error {
				group := str(v.(object), "name")
				return change(c, func(tx *store.Tx) error { return d.regroup(tx, c, group, name == "addSecurityGroup") })
			},
		})
	}
}

// console asks the server's host for its log; length is in lines, -1 all of them.
func (d *dialect) console(c *api.Context, length int) error {
	s, err := compute.Get(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	if s.Host == "" || s.Status.LaunchedAt.IsZero() && s.Status.Phase != model.PhaseStarting {
		return fault.New(fault.Conflict, "Instance %s is not ready", s.ID)
	}
	body, err := json.Marshal(model.ConsoleQuery{ServerID: s.ID, MaxBytes: maxConsole})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.R.Context(), d.wait)
	defer cancel()
	out, err := d.ask.Ask(ctx, s.Host, "console", body)
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.NotFound, err, "Unable to get console")
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"output": lastLines(printable(out), length)})
}

// printable makes a text of a console's bytes: without control characters but tab, line
// feed and carriage return, as in Nova.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), "�"))
}

// lastLines gives the last n lines; n < 0: all.
func lastLines(s string, n int) string {
	if n < 0 {
		return s
	}
	if n == 0 {
		return ""
	}
	end := len(s)
	if strings.HasSuffix(s, "\n") {
		end--
	}
	for i := end; ; n-- {
		if i = strings.LastIndexByte(s[:i], '\n'); i < 0 {
			return s
		}
		if n == 1 {
			return s[i+1:]
		}
	}
}

// regroup puts every port of a server into a security group, or takes them out.
func (d *dialect) regroup(tx *store.Tx, c *api.Context, name string, add bool) error {
	s, err := compute.Get(tx, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	g, err := d.launch.Group(tx, s.ProjectID, name)
	if err != nil {
		return err
	}
	ports := portsOf(tx, s)
	found := false
	for _, p := range ports {
		if !p.PortSecurity {
			continue
		}
		groups := slices.Clone(p.Groups)
		if at := slices.Index(groups, g.ID); at >= 0 {
			found = true
			if add {
				continue
			}
			groups = slices.Delete(groups, at, at+1)
		} else if !add {
			continue
		} else {
			groups = append(groups, g.ID)
		}
		sc := netScope(c)
		sc.Admin = true // the server was looked at; an administrator acts in its project
		if _, err := d.net.UpdatePort(tx, sc, p.ID, network.PortSpec{Groups: &groups}); err != nil {
			return asInvalid(err)
		}
	}
	switch {
	case !add && !found:
		return fault.New(fault.NotFound, "Security group %s not associated with the instance %s", api.Clip(name), s.ID)
	case add && !slices.ContainsFunc(ports, func(p *model.Port) bool { return p.PortSecurity }):
		return badRequest("Security group %s cannot be added: the instance %s has no port with port security.", api.Clip(name), s.ID)
	}
	return nil
}

// keySafe gives what can be the key of a row: an id as it is, nothing for what is none.
func keySafe(s string) string {
	if uuidRE.MatchString(s) {
		return s
	}
	return "-"
}
