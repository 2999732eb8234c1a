package ec2

import (
	"cmp"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) runOperations(add adder) {
	add("RunInstances", api.Member, d.runInstances, "ImageId", "MinCount", "MaxCount", "InstanceType", "KeyName", "SecurityGroup", "SecurityGroupId", "UserData", "SubnetId", "PrivateIpAddress",
		"NetworkInterface", "Placement", "BlockDeviceMapping", "TagSpecification", "ClientToken", "Monitoring", "EbsOptimized", "DisableApiTermination", "DisableApiStop",
		"InstanceInitiatedShutdownBehavior")
}

// wanted is what RunInstances asks for.
type wanted struct {
	launch.Request
	volumeTags map[string]string // nil: none
}

// runErrors are EC2's codes for what package launch answers.
var runErrors = recoding{fault.OverQuota: "InstanceLimitExceeded", fault.NotFound: "InvalidParameterValue", fault.Conflict: "InvalidParameterCombination"}

// errMade says that an earlier request with the same token made the instances.
var errMade = errors.New("made before")

func (d *dialect) runInstances(q *request) (any, error) {
	r := q.Snapshot()
	w, err := d.read(q, r)
	if err != nil {
		return nil, err
	}
	made, err := q.again(r, w)
	if err != nil {
		return nil, err
	}
	if len(made) == 0 { // what an earlier request took is not free for it again
		if err := d.readInterfaces(q, r, w); err != nil {
			return nil, err
		}
		if err := d.readDisks(q, r, w); err != nil {
			return nil, err
		}
		w.Also = func(tx *store.Tx, part []*model.Server) (err error) {
			if made, err = q.again(tx, w); err != nil {
				return err
			}
			if len(made) > 0 {
				return errMade
			}
			return d.finish(q, tx, w, part)
		}
		var now []*model.Server
		now, err = d.launch.Run(q.R.Context(), q.Store(), q.scope(), &w.Request, q.Log)
		switch {
		case errors.Is(err, errMade):
		case err != nil:
			return nil, ranWrong(err)
		default:
			made = now
		}
	}
	r = q.Snapshot()
	var all []shownServer
	for _, s := range made {
		if row, ok := store.Servers.Get(r, s.ID); ok { // with its tags
			s = row
		}
		all = append(all, shownServer{s, showInstance(r, s)})
	}
	return reservationsOf(all).Items[0], nil
}

// ranWrong gives EC2's error for what stood against new instances.
func ranWrong(err error) error {
	if code := fault.CodeOf(err); code == errDryRun.Code || code == "IdempotentParameterMismatch" || code == "TagLimitExceeded" {
		return err
	}
	return runErrors.of(err)
}

// again gives what an earlier request with the same token made.
func (q *request) again(r store.Reader, w *wanted) ([]*model.Server, error) {
	if w.Token == "" {
		return nil, nil
	}
	if tx, ok := r.(*store.Tx); ok { // two at once are put in order
		mark := "server-token," + q.Caller.ProjectID + "," + w.Token
		tx.Mark(mark)
		tx.Guard(mark)
	}
	var out []*model.Server
	for s := range store.Servers.List(r, "token", q.Caller.ProjectID+","+w.Token) {
		switch {
		case s.Deleted || s.Reservation == w.Reservation:
		case s.Flavor.ID != w.FlavorID || s.KeyName != w.KeyName || s.ImageID != "" && w.ImageID != "" && s.ImageID != w.ImageID:
			return nil, fault.Coded(fault.Conflict, "IdempotentParameterMismatch", "The client token was given with other parameters before.")
		default:
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *model.Server) int { return cmp.Compare(a.LaunchIndex, b.LaunchIndex) })
	return out, nil
}

// finish gives the new instances' volumes their tags, and ends a dry run.
func (d *dialect) finish(q *request, tx *store.Tx, w *wanted, made []*model.Server) error {
	if w.volumeTags != nil {
		name, metadata := named(w.volumeTags)
		for _, s := range made {
			for _, u := range s.Volumes {
				if _, err := d.vols.Update(tx, q.volumeScope(), u.VolumeID, volume.Update{Name: &name, Metadata: metadata}); err != nil {
					return recoding{fault.Invalid: "TagLimitExceeded", fault.OverQuota: "TagLimitExceeded"}.of(err)
				}
			}
		}
	}
	if q.flag("DryRun") {
		return errDryRun
	}
	return nil
}

// refuse refuses what is asked for beyond what this cloud has; what it is without may be said.
func (q *request) refuse() error {
	for _, x := range []struct {
		in   *param
		name string
		what string
	}{
		{q.params.Part("Monitoring"), "Enabled", "detailed monitoring"}, {q.params, "EbsOptimized", "EBS optimization"},
		{q.params, "DisableApiTermination", "termination protection"}, {q.params, "DisableApiStop", "stop protection"},
	} {
		on, _, err := x.in.truth(x.name)
		if err != nil {
			return err
		}
		if on {
			return unsupported("Instances with %s are not offered by this cloud.", x.what)
		}
	}
	if v := q.str("InstanceInitiatedShutdownBehavior"); v != "" && v != "stop" {
		return unsupported("An instance that shuts itself down is stopped, and not terminated.")
	}
	for name := range q.params.Part("Placement").parts {
		if v := q.params.Part("Placement").str(name); name != "AvailabilityZone" && (name != "Tenancy" || v != "default") && v != "" {
			return unsupported("Of the placement, only the availability zone is chosen.")
		}
	}
	return nil
}

// read reads what is asked for, but for networks and volumes. What it names is looked up; launch looks again.
func (d *dialect) read(q *request, r store.Reader) (*wanted, error) {
	w := &wanted{}
	w.Alike, w.MultiAttach, w.Received, w.Reservation = true, true, q.Now, launch.NewReservation()
	if err := q.refuse(); err != nil {
		return nil, err
	}
	if err := d.readImage(q, r, w); err != nil {
		return nil, err
	}
	name, err := q.must("InstanceType")
	if err != nil {
		return nil, err
	}
	f, err := q.flavorOf(r, name)
	if err != nil {
		return nil, err
	}
	w.FlavorID = f.ID
	if w.Min, err = q.params.number("MinCount", 1, launch.MaxCount, 1); err != nil {
		return nil, err
	}
	if w.Max, err = q.params.number("MaxCount", 1, launch.MaxCount, w.Min); err != nil {
		return nil, err
	}
	if w.Min > w.Max {
		return nil, fault.Coded(fault.Invalid, "InvalidParameterCombination", "The minimum number of instances is larger than the maximum.")
	}
	if w.KeyName = q.str("KeyName"); w.KeyName != "" {
		if !keyNameRE.MatchString(w.KeyName) {
			return nil, keyID.none(w.KeyName)
		}
		if _, err := compute.GetKeyPair(r, q.Caller.UserID, w.KeyName); err != nil {
			return nil, keyID.none(w.KeyName)
		}
	}
	if w.UserData, err = q.userData(); err != nil {
		return nil, err
	}
	if w.Token = q.str("ClientToken"); len(w.Token) > maxToken {
		return nil, badValue("The client token has at most %d characters.", maxToken)
	}
	if w.Request.Zone = q.params.Part("Placement").str("AvailabilityZone"); w.Request.Zone != "" && launch.Whereabouts(r, w.Request.Zone, "") != nil {
		return nil, unknownZone(w.Request.Zone)
	}
	return w, q.readTagSpecs(w)
}

func (d *dialect) readImage(q *request, r store.Reader, w *wanted) error {
	id, err := q.must("ImageId")
	if err != nil {
		return err
	}
	img, err := q.imageOf(r, id)
	if err != nil {
		return err
	}
	if img.Status != model.ImageActive {
		return fault.Coded(fault.Invalid, "InvalidAMIID.Unavailable", "The image ID '%s' is not available", id)
	}
	w.ImageID = img.ID
	return nil
}

// userData gives the user data, in base64 without spaces.
func (q *request) userData() (string, error) {
	text := strings.Join(strings.Fields(q.str("UserData")), "")
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return "", fault.Coded(fault.Invalid, "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	}
	if len(text) > compute.MaxUserData {
		return "", badValue("User data is limited to %d bytes in BASE64.", compute.MaxUserData)
	}
	return text, nil
}

// readTagSpecs reads the tags of the instances, and of the volumes that are made for them.
func (q *request) readTagSpecs(w *wanted) error {
	seen := map[string]bool{}
	for _, s := range q.list("TagSpecification") {
		kind := s.str("ResourceType")
		tags, err := readTags(s)
		switch {
		case err != nil:
			return err
		case seen[kind]:
			return badValue("Duplicate tag specification for resource type '%s'.", api.Clip(kind))
		case kind == "instance":
			w.Name, w.Metadata = named(tags)
		case kind == "volume":
			w.volumeTags = tags
		default:
			return badValue("'%s' is not a valid taggable resource type for this operation.", api.Clip(kind))
		}
		seen[kind] = true
	}
	return nil
}
