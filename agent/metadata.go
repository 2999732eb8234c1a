package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"yakumo/model"
)

// metadataService answers guests. Who asks is told by the address that the data path gives
// the connection, never by anything that the guest says.
type metadataService struct {
	a        *Agent
	requests [6]atomic.Uint64 // by hundreds of the status; [0]: refused as too many

	mu   sync.Mutex
	busy map[model.ID]int // requests being answered, by port
}

// perPort is how many requests of one port are answered at once.
const perPort = 16

func newMetadataService(a *Agent) *metadataService {
	return &metadataService{a: a, busy: map[model.ID]int{}}
}

// freebind makes sockets on addresses that no device of the host needs to hold yet.
func freebind() *net.ListenConfig {
	return &net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		level, option := unix.SOL_IP, unix.IP_FREEBIND
		if strings.HasSuffix(network, "6") {
			level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); cerr != nil {
			return cerr
		}
		return err
	}}
}

// inFamily gives the name of a kind of socket for an address's version of IP.
func inFamily(kind string, a netip.Addr) string {
	if a.Is4() {
		return kind + "4"
	}
	return kind + "6"
}

func listenFree(at netip.AddrPort) (net.Listener, error) {
	return freebind().Listen(context.Background(), inFamily("tcp", at.Addr()), at.String())
}

func (m *metadataService) serve(ctx context.Context, ln net.Listener) {
	srv := &http.Server{
		Handler: m, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(m.a.log.Handler(), slog.LevelDebug), // guests can make as many errors as they like
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(fair(ln)); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.a.log.Error("the metadata service ended", "err", err)
	}
}

// ServeHTTP implements http.Handler.
func (m *metadataService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status := m.answer(w, r)
	m.requests[status/100].Add(1)
}

func (m *metadataService) answer(w http.ResponseWriter, r *http.Request) int {
	fail := func(status int) int {
		http.Error(w, http.StatusText(status), status)
		return status
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return fail(http.StatusBadRequest)
	}
	owner, ok := m.a.cfg.Datapath.MetadataOwner(from.Addr().Unmap())
	if !ok {
		return fail(http.StatusNotFound)
	}
	if !m.enter(owner.Port) {
		return fail(http.StatusTooManyRequests)
	}
	defer m.leave(owner.Port)
	port := m.a.ledger.port(owner.Port)
	if port == nil {
		return fail(http.StatusNotFound)
	}
	row := m.a.ledger.server(port.DeviceID)
	if row == nil || row.Deleted {
		return fail(http.StatusNotFound)
	}
	if r.Method == http.MethodPost && takesPassword(r.URL.Path) {
		status := m.password(w, r, row)
		if status == http.StatusOK {
			return status
		}
		return fail(status)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return fail(http.StatusMethodNotAllowed)
	}
	body, kind, err := m.a.instanceOf(r.Context(), row).lookup(r.URL.Path)
	if err != nil {
		m.a.log.Error("metadata cannot be made", "server", row.ID, "path", r.URL.Path, "err", err)
		return fail(http.StatusInternalServerError)
	}
	if kind == "" {
		return fail(http.StatusNotFound)
	}
	m.a.alive(row.ID)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := w.Write(body); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		m.a.log.Debug("a guest hung up", "server", row.ID, "err", err)
	}
	return http.StatusOK
}

// maxPassword is the longest password that a guest may hand in, in bytes, as in Nova.
const maxPassword = 4 * 255

// takesPassword tells whether a guest may hand in its password at the path.
func takesPassword(path string) bool {
	parts := pathParts(path)
	return len(parts) == 3 && parts[0] == "openstack" && parts[2] == "password" && slices.Contains((&instance{row: &model.HostServer{}}).openstackFiles(parts[1]), "password")
}

// password takes a guest's password, encrypted by it with its owner's key, once: who has come in later cannot change
// what its owner reads.
func (m *metadataService) password(w http.ResponseWriter, r *http.Request, row *model.HostServer) int {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPassword))
	if err != nil || len(body) == 0 || !utf8.Valid(body) {
		return http.StatusBadRequest
	}
	status := http.StatusNotFound // without progress there is no guest
	err = m.a.ledger.note(row.ID, func(p *progress) {
		if row.Sealed != "" || p.Sealed != "" && p.SealedClears == row.SealedClears {
			status = http.StatusConflict
			return
		}
		p.Sealed, p.SealedClears, status = string(body), row.SealedClears, http.StatusOK
	})
	if err != nil {
		m.a.log.Error("a guest's password cannot be kept", "server", row.ID, "err", err)
		return http.StatusInternalServerError
	}
	if status == http.StatusOK {
		m.a.queue.add(row.ID) // which reports it
	}
	return status
}

func (m *metadataService) enter(port model.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[port] >= perPort {
		return false
	}
	m.busy[port]++
	return true
}

func (m *metadataService) leave(port model.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[port]--; m.busy[port] == 0 {
		delete(m.busy, port)
	}
}

const (
	plainText = "text/plain; charset=utf-8"
	jsonText  = "application/json"
	rawBytes  = "application/octet-stream"
)

func pathParts(path string) (parts []string) {
	for p := range strings.SplitSeq(path, "/") {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return parts
}

// lookup finds what stands at a path; an empty kind: nothing. Empty parts of a path count for
// nothing; "." and ".." are names like any other, and name nothing.
func (in *instance) lookup(path string) (body []byte, kind string, err error) {
	parts := pathParts(path)
	if len(parts) == 0 {
		return []byte(strings.Join(ec2Versions, "\n")), plainText, nil
	}
	if parts[0] == "openstack" {
		return in.lookupOpenstack(parts[1:])
	}
	for _, v := range ec2Versions {
		if v == parts[0] {
			return in.lookupEC2(parts[1:])
		}
	}
	return nil, "", nil
}

func (in *instance) lookupOpenstack(parts []string) ([]byte, string, error) {
	if len(parts) == 0 {
		var names []string
		for _, v := range openstackVersions {
			names = append(names, v.name)
		}
		return []byte(strings.Join(names, "\n")), plainText, nil
	}
	files := in.openstackFiles(parts[0])
	if files == nil {
		return nil, "", nil
	}
	if len(parts) == 1 {
		return []byte(strings.Join(files, "\n")), plainText, nil
	}
	if len(parts) > 2 {
		return nil, "", nil
	}
	for _, f := range files {
		if f != parts[1] {
			continue
		}
		b, ok, err := in.openstackFile(parts[0], f)
		switch {
		case err != nil || !ok:
			return nil, "", err
		case strings.HasSuffix(f, ".json"):
			return b, jsonText, nil
		case f == "password":
			return b, plainText, nil
		}
		return b, rawBytes, nil
	}
	return nil, "", nil
}

func (in *instance) lookupEC2(parts []string) ([]byte, string, error) {
	user, err := in.userData()
	if err != nil {
		return nil, "", err
	}
	switch {
	case len(parts) == 0 && user != nil:
		return []byte("meta-data\nuser-data"), plainText, nil
	case len(parts) == 0:
		return []byte("meta-data"), plainText, nil
	case parts[0] == "user-data" && len(parts) == 1 && user != nil:
		return user, rawBytes, nil
	case parts[0] != "meta-data":
		return nil, "", nil
	}
	t := in.ec2()
	for i, p := range parts[1:] {
		switch v := t[p].(type) {
		case tree:
			t = v
		case string:
			if i == len(parts)-2 {
				return []byte(v), plainText, nil
			}
			return nil, "", nil
		default:
			return nil, "", nil
		}
	}
	return []byte(in.list(strings.Join(parts[1:], "/"), t)), plainText, nil
}
