package nova

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// diagnostics asks the server's host what the guest uses; since 2.48 in one form for every hypervisor.
func (d *dialect) diagnostics(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	switch {
	case s.Host == "" || s.Status.LaunchedAt.IsZero():
		return fault.New(fault.Conflict, "Instance %s is not ready", s.ID)
	case s.Status.Power != model.PowerRunning && s.Status.Power != model.PowerPaused:
		_, power := status(s)
		return fault.New(fault.Conflict, "Cannot 'get_diagnostics' instance %s while it is in power state %d", s.ID, power)
	}
	body, err := json.Marshal(model.DiagnosticsQuery{ServerID: s.ID})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.R.Context(), d.wait)
	defer cancel()
	raw, err := d.ask.Ask(ctx, s.Host, "diagnostics", body)
	if err != nil {
		return err
	}
	var x model.Diagnostics
	if err := json.Unmarshal(raw, &x); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The host gave no diagnostics that can be read.")
	}
	if at(c, 48) {
		return c.JSON(http.StatusOK, diagnosticsOf(s, portsOf(snap, s), &x))
	}
	return c.JSON(http.StatusOK, olderDiagnostics(&x))
}

// diagnosticsOf is the form since 2.48: counters in bytes and seconds.
func diagnosticsOf(s *model.Server, ports []*model.Port, x *model.Diagnostics) object {
	cpus, nics, disks := []object{}, []object{}, []object{}
	for i, ns := range x.CPUNanos {
		cpus = append(cpus, object{"id": i, "time": ns, "utilisation": nil})
	}
	for i, n := range x.NICs {
		mac := n.MAC
		if mac == "" && i < len(ports) {
			mac = ports[i].MAC
		}
		nics = append(nics, object{"mac_address": mac, "rx_octets": n.InBytes, "rx_packets": n.InPackets, "rx_errors": n.InErrors, "rx_drop": n.InDrops,
			"rx_rate": nil, "tx_octets": n.OutBytes, "tx_packets": n.OutPackets, "tx_errors": n.OutErrors, "tx_drop": n.OutDrops, "tx_rate": nil})
	}
	for _, k := range x.Disks {
		disks = append(disks, object{"read_bytes": k.ReadBytes, "read_requests": k.ReadRequests, "write_bytes": k.WriteBytes,
			"write_requests": k.WriteRequests, "errors_count": k.Errors})
	}
	state := "running"
	if compute.State(s) == compute.Paused {
		state = "paused"
	}
	return object{"state": state, "driver": x.Driver, "hypervisor": x.Hypervisor, "hypervisor_os": "linux", "uptime": x.UptimeSecs, "config_drive": s.ConfigDrive,
		"num_cpus": len(cpus), "num_nics": len(nics), "num_disks": len(disks), "cpu_details": cpus, "nic_details": nics, "disk_details": disks,
		"memory_details": object{"maximum": x.MemoryMiB, "used": x.UsedMiB}}
}

// olderDiagnostics is the form before 2.48: names as libvirt's driver made them.
func olderDiagnostics(x *model.Diagnostics) object {
	o := object{"memory": x.MemoryMiB << 10, "memory-actual": x.MemoryMiB << 10, "memory-rss": x.UsedMiB << 10}
	for i, ns := range x.CPUNanos {
		o["cpu"+strconv.Itoa(i)+"_time"] = ns
	}
	for i, k := range x.Disks {
		name := "vd" + string(rune('a'+i%26))
		o[name+"_read"], o[name+"_read_req"], o[name+"_write"], o[name+"_write_req"], o[name+"_errors"] = k.ReadBytes, k.ReadRequests, k.WriteBytes, k.WriteRequests, k.Errors
	}
	for i, n := range x.NICs {
		name := "net" + strconv.Itoa(i)
		o[name+"_rx"], o[name+"_rx_packets"], o[name+"_rx_errors"], o[name+"_rx_drop"] = n.InBytes, n.InPackets, n.InErrors, n.InDrops
		o[name+"_tx"], o[name+"_tx_packets"], o[name+"_tx_errors"], o[name+"_tx_drop"] = n.OutBytes, n.OutPackets, n.OutErrors, n.OutDrops
	}
	return o
}

// crashDump has a guest interrupted. Nova answers before its host has been asked; here what the host refuses is answered.
func (d *dialect) crashDump(c *api.Context, _ any) error {
	ctx := context.WithoutCancel(c.R.Context()) // what it began it ends
	var s *model.Server
	if _, err := c.Store().Update(ctx, func(tx *store.Tx) (err error) {
		s, err = d.c.CrashDump(tx, scope(c), c.Param("id"))
		return err
	}); err != nil {
		return err
	}
	body, err := json.Marshal(model.InterruptQuery{ServerID: s.ID})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, d.wait)
	defer cancel()
	_, asked := d.ask.Ask(wait, s.Host, "interrupt", body)
	failure := ""
	if asked != nil {
		failure = "The guest's host could not be asked."
		if text, ok := fault.Text(asked); ok {
			failure = text
		}
	}
	if _, err := c.Store().Update(ctx, func(tx *store.Tx) error { return d.c.CrashDumped(tx, s.ID, c.RequestID, failure) }); err != nil {
		return err
	}
	if failure != "" {
		return fault.Wrap(fault.Conflict, asked, "Failed to trigger a crash dump of instance %s: %s", s.ID, failure)
	}
	return c.Empty(http.StatusAccepted)
}
