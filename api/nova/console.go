package nova

import (
	"net/http"
	"net/url"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) consoleRoutes(route adder) {
	route(http.MethodPost, "/servers/{id}/remote-consoles", api.Member, 6, d.remoteConsole)
	route(http.MethodGet, "/os-console-auth-tokens/{token}", api.Admin, 1, d.showConsoleToken)
}

// consoleTypes are the types of console that each protocol has in Nova.
var consoleTypes = map[string][]string{
	"vnc": {"novnc", "xvpvnc"}, "spice": {"spice-html5", "spice-direct"}, "rdp": {"rdp-html5"}, "serial": {"serial"}, "mks": {"webmks"},
}

// consoleActions are the actions that microversion 2.6 made one route of.
func (d *dialect) consoleActions(add adds) {
	for name, protocol := range map[string]string{
		"os-getVNCConsole": "vnc", "os-getSPICEConsole": "spice", "os-getRDPConsole": "rdp", "os-getSerialConsole": "serial",
	} {
		types := consoleTypes[protocol]
		if protocol == "spice" {
			types = types[:1] // the other is younger than this form
		}
		add(name, action{
			to:    5,
			check: always(exactly(members{"type": oneOf(types...)}, "type")),
			run: func(c *api.Context, v any) error {
				kind := str(v.(object), "type")
				at, err := d.openConsole(c, protocol, kind)
				if err != nil {
					return err
				}
				return c.JSON(http.StatusOK, object{"console": object{"type": kind, "url": at}})
			},
		})
	}
}

// remoteConsole serves POST servers/<id>/remote-consoles.
func (d *dialect) remoteConsole(c *api.Context) error {
	protocols, types := []string{"vnc", "spice", "rdp", "serial"}, []string{"novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial"}
	if at(c, 8) {
		protocols, types = append(protocols, "mks"), append(types, "webmks")
	}
	if at(c, 99) {
		types = append(types, "spice-direct")
	}
	body, err := decode(c, exactly(members{"remote_console": exactly(members{"protocol": oneOf(protocols...), "type": oneOf(types...)}, "protocol", "type")}, "remote_console"))
	if err != nil {
		return err
	}
	o := body["remote_console"].(object)
	protocol, kind := str(o, "protocol"), str(o, "type")
	at, err := d.openConsole(c, protocol, kind)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"remote_console": object{"protocol": protocol, "type": kind, "url": at}})
}

// openConsole makes a token and gives the URL that takes it: for a browser, or of a WebSocket for a serial console.
func (d *dialect) openConsole(c *api.Context, protocol, kind string) (string, error) {
	// Whose server it is comes before what a console it may have.
	if _, err := compute.Get(c.Snapshot(), scope(c), c.Param("id")); err != nil {
		return "", err
	}
	consoles := map[string]string{"vnc/novnc": compute.ConsoleVNC, "serial/serial": compute.ConsoleSerial}
	opens, ok := consoles[protocol+"/"+kind]
	switch {
	case ok:
	case protocol == "vnc" || protocol == "serial":
		return "", badRequest("Invalid console type %s", kind)
	default:
		return "", badRequest("Unavailable console type %s.", kind)
	}
	var token string
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		var err error
		token, _, err = d.c.NewConsole(tx, scope(c), c.Param("id"), opens)
		return err
	}); err != nil {
		return "", err
	}
	query := "?token=" + url.QueryEscape(token)
	if opens == compute.ConsoleVNC {
		return c.Front("/console/novnc" + query), nil
	}
	return "ws" + strings.TrimPrefix(c.Front("/console/serial"+query), "http"), nil // http becomes ws, and https wss
}

// showConsoleToken serves GET os-console-auth-tokens/<token>, for proxies of the operator's own.
func (d *dialect) showConsoleToken(c *api.Context) error {
	if !at(c, 31) {
		return fault.New(fault.Unauthorized, "The requested console type details are not accessible")
	}
	t, s, ok := d.c.Console(c.Snapshot(), c.Param("token"))
	if !ok {
		return fault.New(fault.NotFound, "Token not found")
	}
	host, ok := store.Hosts.Get(c.Snapshot(), s.Host)
	if !ok {
		host = &model.Host{}
	}
	// There is no port: a console is reached through the front alone.
	return c.JSON(http.StatusOK, object{"console": object{"instance_uuid": t.ServerID, "host": host.Name, "port": 0, "internal_access_path": t.Kind}})
}
