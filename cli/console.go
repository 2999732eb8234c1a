package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"

	"yakumo/fault"
)

// Console is the command that makes a server's serial console this terminal.
type Console struct {
	Server string `arg:"" help:"The server's name or id."`
}

// escape is what leaves a console: Ctrl-].
const escape = 0x1d

// Run opens the console, until the escape is typed or the console ends.
func (c *Console) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	restore, err := raw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	defer restore()
	fmt.Fprintf(os.Stderr, "The console of %s. Ctrl-] leaves; press Enter if nothing shows.\r\n", c.Server)
	err = cl.Console(ctx, c.Server, os.Stdin, os.Stdout)
	fmt.Fprint(os.Stderr, "\r\n")
	return err
}

// Console carries a server's serial console between in and out until in has the escape, or the console ends.
// The end of in is no end: what the guest writes is still shown.
func (c *Client) Console(ctx context.Context, server string, in io.Reader, out io.Writer) error {
	id, err := c.server(ctx, server)
	if err != nil {
		return err
	}
	var reply struct {
		Console struct {
			URL string `json:"url"`
		} `json:"console"`
	}
	body := map[string]any{"os-getSerialConsole": map[string]any{"type": "serial"}}
	if err := c.Do(ctx, http.MethodPost, "/compute/v2.1/servers/"+url.PathEscape(id)+"/action", body, &reply); err != nil {
		return err
	}
	d := websocket.Dialer{Subprotocols: []string{"binary"}, HandshakeTimeout: time.Minute, Proxy: http.ProxyFromEnvironment}
	ws, resp, err := d.DialContext(ctx, reply.Console.URL, nil)
	if err != nil {
		if resp != nil {
			b, rerr := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			if rerr == nil && len(b) > 0 {
				return fault.New(fault.Unavailable, "The console was refused: %s", bytes.TrimSpace(b))
			}
		}
		return fault.Wrap(fault.Unavailable, err, "The console cannot be reached at the API's address.")
	}
	defer ws.Close()
	left := make(chan struct{}) // the escape was typed
	go func() {
		if keys(ws, in) {
			close(left)
			ws.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { ws.Close() })()
	for {
		_, b, err := ws.ReadMessage()
		if err == nil {
			if _, err = out.Write(b); err != nil {
				return err
			}
			continue
		}
		select {
		case <-left:
			return nil
		default:
		}
		var ce *websocket.CloseError
		if errors.As(err, &ce) && ce.Text != "" {
			return fault.New(fault.Unavailable, "The console was closed: %s.", ce.Text)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.Wrap(fault.Unavailable, err, "The connection to the console was lost.")
	}
}

// keys sends what is typed; true: the escape was.
func keys(ws *websocket.Conn, in io.Reader) bool {
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		b, _, leave := bytes.Cut(buf[:n], []byte{escape})
		if len(b) > 0 && ws.WriteMessage(websocket.BinaryMessage, b) != nil {
			return false // the reader says why
		}
		if leave || err != nil {
			return leave
		}
	}
}

// server finds a server by its id or name.
func (c *Client) server(ctx context.Context, name string) (string, error) {
	var out struct {
		Servers []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"servers"`
	}
	if err := c.Do(ctx, http.MethodGet, "/compute/v2.1/servers/"+url.PathEscape(name), nil, nil); err == nil {
		return name, nil // it is an id
	}
	// The filter is a regular expression.
	if err := c.Do(ctx, http.MethodGet, "/compute/v2.1/servers?name="+url.QueryEscape("^"+regexp.QuoteMeta(name)+"$"), nil, &out); err != nil {
		return "", err
	}
	found := ""
	for _, s := range out.Servers {
		if s.Name != name {
			continue
		}
		if found != "" {
			return "", fault.New(fault.Invalid, "Several servers are called %s. Use an id.", name)
		}
		found = s.ID
	}
	if found == "" {
		return "", fault.New(fault.NotFound, "There is no server %s.", name)
	}
	return found, nil
}

// raw makes a terminal pass on each key as it is typed, and gives what makes it as it was. What is no
// terminal is left alone.
func raw(fd int) (func(), error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	t := *old
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Oflag &^= unix.OPOST
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &t); err != nil {
		return nil, err
	}
	return func() {
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, old); err != nil {
			fmt.Fprintln(os.Stderr, "the terminal could not be made as it was: run `reset`")
		}
	}, nil
}
