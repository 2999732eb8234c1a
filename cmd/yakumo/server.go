package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"yakumo/fault"
	"yakumo/store"
	"yakumo/store/embed"
)

type serverCmd struct {
	Name              string        `help:"The name of this server process, unique in the cloud." default:"${hostname}"`
	DataDir           string        `help:"Where state, keys and images are kept." default:"/var/lib/yakumo/server" type:"path"`
	Listen            string        `help:"Address of the API. A socket that a service manager hands over (LISTEN_FDS) is used instead." default:"0.0.0.0:8780"`
	PublicURL         string        `name:"public-url" help:"Where clients reach the API; it goes into the service catalogue." default:"http://127.0.0.1:8780"`
	TLSCert           string        `name:"tls-cert" help:"Certificate of the API, PEM with its chain; read again when it changes. Without it the API is plain HTTP: put it behind a proxy." type:"existingfile"`
	TLSKey            string        `name:"tls-key" help:"Its key." type:"existingfile"`
	LinkListen        string        `help:"Address that hosts' agents and other servers connect to (mutual TLS)." default:"0.0.0.0:8700"`
	LinkURL           string        `name:"link-url" help:"Where other servers reach --link-listen; default: https and the first address of this machine."`
	DebugListen       string        `help:"Private address for metrics, health and pprof; empty: none." default:"127.0.0.1:8701"`
	EtcdEndpoints     []string      `help:"An external etcd cluster, such as http://10.0.0.1:2379,…; empty: etcd runs inside. It needs --max-txn-ops 1024."`
	EtcdCA            string        `name:"etcd-ca" help:"CA of the external etcd, for https." type:"existingfile"`
	EtcdCert          string        `help:"Client certificate for the external etcd." type:"existingfile"`
	EtcdKey           string        `help:"Its key." type:"existingfile"`
	MasterKeyFile     string        `help:"The cloud's master key, the same for every server; default: master.key in the data directory, made where it is missing." type:"path"`
	AdminPasswordFile string        `help:"File with the password that the user admin gets when the cloud is made." type:"path"`
	ImageDir          string        `help:"Where image data is kept; several servers must share it. Default: images in the data directory." type:"path"`
	CPURatio          float64       `name:"cpu-ratio" help:"Virtual CPUs per real one." default:"16"`
	MemoryRatio       float64       `help:"Guests' memory per real memory." default:"1.5"`
	DiskRatio         float64       `help:"Guests' disk per real disk." default:"1"`
	TunnelType        string        `help:"Type of the tunnels of networks for which none is asked: vxlan, geneve or gre." default:"vxlan" enum:"vxlan,geneve,gre"`
	PhysicalNetworks  []string      `help:"Names of physical networks that flat and VLAN networks may be made on before a host has mapped them."`
	SwitchCA          string        `name:"switch-ca" help:"PEM file: who signs the certificates of switches at ssl: addresses." type:"existingfile"`
	SwitchCert        string        `name:"switch-cert" help:"PEM file: this server's certificate for such switches." type:"existingfile"`
	SwitchKey         string        `name:"switch-key" help:"PEM file: its key." type:"existingfile"`
	ConsoleTTL        time.Duration `name:"console-ttl" help:"How long the URL of a console may be used to open it." default:"10m"`
	ConsoleIdle       time.Duration `name:"console-idle" help:"A console on which nothing passes for so long is closed." default:"1h"`
	ConsoleOrigins    []string      `name:"console-origin" help:"Further origins of web pages that may open consoles, such as https://cloud.example.org; that of the API itself always may."`
	NoVNC             string        `name:"novnc" help:"Folder with noVNC's files, the page for guests' screens." default:"/usr/share/novnc" type:"path"`
	VendorData        string        `help:"File with a JSON object that every guest is told in vendor_data.json; an empty object takes it back." type:"existingfile"`
	KeepUsage         time.Duration `help:"How long a server that is gone is still measured (openstack usage show)." default:"1488h"`
	HostTTL           time.Duration `name:"host-ttl" help:"How long a host may be silent before it counts as down." default:"6s"`
	GatewayTTL        time.Duration `name:"gateway-ttl" help:"How long a host that is a router's gateway, and its kernel, may be silent before its gateways go elsewhere." default:"400ms"`
	GatewayGrace      time.Duration `name:"gateway-grace" help:"How long the agent of such a host may be away while the host itself is alive; less than --host-ttl." default:"3s"`
}

// Run runs a server until ctx ends.
func (c *serverCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(store.GCPercent)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	master, err := c.masterKey()
	if err != nil {
		return err
	}
	client, closeEtcd, err := c.etcd(ctx, log, cancel)
	if err != nil {
		return err
	}
	defer closeEtcd()
	octx, ocancel := context.WithTimeout(ctx, 60*time.Second)
	st, err := store.Open(octx, store.Config{Client: client, Log: log})
	ocancel()
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The state store cannot be read: %v.", err)
	}
	defer st.Close()

	metrics := prometheus.NewRegistry()
	role, err := newServerRole(ctx, serverParts{cmd: c, store: st, master: master, log: log, metrics: metrics})
	if err != nil {
		return err
	}
	defer role.Close()

	apiListener, err := listener(c.Listen)
	if err != nil {
		return err
	}
	linkListener, err := net.Listen("tcp", c.LinkListen)
	if err != nil {
		return err
	}
	apiServer := &http.Server{Handler: withHealth(role.API, role.Healthy), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	linkServer := role.Link.HTTPServer()
	serveAPI := func() error { return apiServer.Serve(apiListener) }
	if c.TLSCert != "" {
		pair, err := openCert(c.TLSCert, c.TLSKey)
		if err != nil {
			return err
		}
		apiServer.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.get}
		serveAPI = func() error { return apiServer.ServeTLS(apiListener, "", "") }
	}
	serve(cancel, serveAPI)
	serve(cancel, func() error { return linkServer.ServeTLS(linkListener, "", "") })
	stopDebug, err := debugServer(c.DebugListen, metrics, func(w http.ResponseWriter, r *http.Request) { health(w, r, role.Healthy) }, cancel)
	if err != nil {
		return err
	}
	defer stopDebug()
	loops := make(chan struct{})
	go func() { defer close(loops); role.Run(ctx) }()
	log.Info("server ready", "version", version, "api", apiListener.Addr(), "link", linkListener.Addr(), "name", c.Name)

	<-ctx.Done()
	log.Info("shutting down")
	role.Consoles.Close()
	role.Link.Close() // streams end, hosts go to another server
	sctx, scancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer scancel()
	err = errors.Join(apiServer.Shutdown(sctx), linkServer.Shutdown(sctx))
	select { // the loops give up their offices, so that another server leads at once
	case <-loops:
	case <-sctx.Done():
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// serve runs f; its end ends the process.
func serve(cancel context.CancelCauseFunc, f func() error) {
	go func() {
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cancel(err)
		}
	}()
}

// listener gives the socket that was handed over (sd_listen_fds(3)), or makes one.
func listener(addr string) (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" {
		if pid := os.Getenv("LISTEN_PID"); pid == "" || pid == fmt.Sprint(os.Getpid()) {
			f := os.NewFile(3, "listener")
			defer f.Close()
			return net.FileListener(f)
		}
	}
	return net.Listen("tcp", addr)
}

// masterKey reads the cloud's master key, base64 of 32 bytes, or makes it.
func (c *serverCmd) masterKey() ([]byte, error) {
	path := c.MasterKeyFile
	if path == "" {
		path = filepath.Join(c.DataDir, "master.key")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if c.MasterKeyFile != "" {
			return nil, fault.New(fault.NotFound, "There is no master key in %s. Make one with `head -c 32 /dev/urandom | base64`; every server of the cloud needs the same.", path)
		}
		if len(c.EtcdEndpoints) > 0 {
			return nil, fault.New(fault.Invalid, "With an external etcd every server needs the same master key: make one with `head -c 32 /dev/urandom | base64`, and give it with --master-key-file.")
		}
		key := make([]byte, 32)
		rand.Read(key)
		if err := writeOnce(path, base64.StdEncoding.EncodeToString(key)+"\n"); err == nil {
			return key, nil
		} else if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		b, err = os.ReadFile(path) // another server was quicker
	}
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(key) != 32 {
		return nil, fault.New(fault.Invalid, "%s does not hold a master key: base64 of 32 bytes.", path)
	}
	return key, nil
}

// writeOnce makes the file, whole and for its owner only, where there is none.
func writeOnce(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// adminPassword reads the first administrator's password.
func (c *serverCmd) adminPassword() (string, error) {
	if c.AdminPasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.AdminPasswordFile)
	return strings.TrimSpace(string(b)), err
}

func (c *serverCmd) etcd(ctx context.Context, log *slog.Logger, cancel context.CancelCauseFunc) (*clientv3.Client, func(), error) {
	if len(c.EtcdEndpoints) == 0 {
		dir := filepath.Join(c.DataDir, "etcd")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, err
		}
		octx, ocancel := context.WithTimeout(ctx, 60*time.Second)
		defer ocancel()
		m, err := embed.Start(octx, embed.Config{Dir: dir})
		if err != nil {
			return nil, nil, err
		}
		serve(cancel, func() error {
			select {
			case err := <-m.Err():
				return fmt.Errorf("etcd ended: %w", err)
			case <-ctx.Done():
				return nil
			}
		})
		return m.Client, m.Close, nil
	}
	cfg := store.DialConfig{Endpoints: c.EtcdEndpoints}
	if c.EtcdCA != "" {
		ca, err := os.ReadFile(c.EtcdCA)
		if err != nil {
			return nil, nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, nil, fault.New(fault.Invalid, "%s holds no certificate.", c.EtcdCA)
		}
		cfg.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if c.EtcdCert != "" {
			cert, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey)
			if err != nil {
				return nil, nil, err
			}
			cfg.TLS.Certificates = []tls.Certificate{cert}
		}
	}
	cl, err := store.Dial(cfg)
	if err != nil {
		return nil, nil, err
	}
	return cl, func() { cl.Close() }, nil
}

// withHealth serves /healthz beside a handler.
func withHealth(next http.Handler, healthy func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		health(w, r, healthy)
	})
}

func health(w http.ResponseWriter, r *http.Request, healthy func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := healthy(ctx); err != nil {
		http.Error(w, "not healthy: "+text(err), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// debugServer serves metrics, health and pprof on a private address.
func debugServer(addr string, metrics *prometheus.Registry, healthz http.HandlerFunc, cancel context.CancelCauseFunc) (func(), error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", healthz)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	serve(cancel, func() error { return srv.Serve(l) })
	return func() { srv.Close() }, nil
}
