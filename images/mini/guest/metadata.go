package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// metadata is a client of the metadata service at one address ("host:port").
type metadata struct {
	address string
}

const (
	metadataDial = 2 * time.Second
	metadataGet  = 10 * time.Second
	metadataMax  = 1 << 20 // bytes of one answer
)

// errNotFound says that the service is there and has no such path.
var errNotFound = errors.New("not found")

// read asks for the OpenStack paths first and, if the service has none, for EC2's.
func (m metadata) read(ctx context.Context) (*instance, string, error) {
	data, err := m.get(ctx, "/openstack/latest/meta_data.json")
	if errors.Is(err, errNotFound) {
		inst, err := m.readEC2(ctx)
		return inst, "metadata service (EC2 paths)", err
	}
	if err != nil {
		return nil, "", err
	}
	inst, err := parseOpenstackMetadata(data)
	if err != nil {
		return nil, "", err
	}
	inst.userData, err = m.getIfFound(ctx, "/openstack/latest/user_data")
	return inst, "metadata service", err
}

// readEC2 reads the paths of https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html.
func (m metadata) readEC2(ctx context.Context) (*instance, error) {
	const base = "/latest/meta-data/"
	id, err := m.get(ctx, base+"instance-id")
	if err != nil {
		return nil, err
	}
	inst := &instance{id: strings.TrimSpace(string(id))}
	if inst.id == "" {
		return nil, errors.New("metadata service: empty instance-id")
	}
	name, err := m.getIfFound(ctx, base+"local-hostname")
	if err != nil {
		return nil, err
	}
	inst.hostname = strings.TrimSpace(string(name))
	list, err := m.getIfFound(ctx, base+"public-keys/")
	if err != nil {
		return nil, err
	}
	for _, l := range keyLines(string(list)) { // "0=name"
		number, _, _ := strings.Cut(l, "=")
		key, err := m.get(ctx, base+"public-keys/"+number+"/openssh-key")
		if err != nil {
			return nil, err
		}
		inst.keys = append(inst.keys, keyLines(string(key))...)
	}
	inst.userData, err = m.getIfFound(ctx, "/latest/user-data")
	return inst, err
}

// getIfFound is get with an empty answer in place of errNotFound.
func (m metadata) getIfFound(ctx context.Context, path string) ([]byte, error) {
	body, err := m.get(ctx, path)
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	return body, err
}

// get fetches one path over a connection of its own with HTTP/1.0, which the simplest of services answers.
func (m metadata) get(ctx context.Context, path string) ([]byte, error) {
	dialer := net.Dialer{Timeout: metadataDial}
	conn, err := dialer.DialContext(ctx, "tcp", m.address)
	if err != nil {
		return nil, fmt.Errorf("metadata service: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(metadataGet)); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(m.address)
	if err != nil {
		return nil, err
	}
	host, _, _ = strings.Cut(host, "%") // the zone is ours alone
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: yakumo-mini\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return nil, fmt.Errorf("metadata service: ask for %s: %w", path, err)
	}
	body, err := readResponse(conn)
	if err != nil {
		return nil, fmt.Errorf("metadata service: %s: %w", path, err)
	}
	return body, nil
}

// readResponse reads an HTTP/1.0 response (RFC 1945) to its end and returns the body of a 200. 404 is errNotFound.
func readResponse(r io.Reader) ([]byte, error) {
	br := bufio.NewReader(io.LimitReader(r, metadataMax+64<<10))
	tr := textproto.NewReader(br)
	line, err := tr.ReadLine()
	if err != nil {
		return nil, fmt.Errorf("read status line: %w", err)
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(proto, "HTTP/1.") {
		return nil, fmt.Errorf("not an HTTP answer: %.40q", line)
	}
	header, err := tr.ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	switch code {
	case "200":
	case "404":
		return nil, errNotFound
	default:
		return nil, fmt.Errorf("status %.20q", code)
	}
	if te := header.Get("Transfer-Encoding"); te != "" {
		return nil, fmt.Errorf("transfer encoding %q in an answer to HTTP/1.0", te)
	}
	want := -1
	if l := header.Get("Content-Length"); l != "" {
		if want, err = strconv.Atoi(l); err != nil || want < 0 || want > metadataMax {
			return nil, fmt.Errorf("content length %.20q", l)
		}
		br = bufio.NewReader(io.LimitReader(br, int64(want)))
	}
	body, err := io.ReadAll(br)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if want >= 0 && len(body) != want {
		return nil, fmt.Errorf("body ends after %d of %d bytes", len(body), want)
	}
	if len(body) > metadataMax {
		return nil, fmt.Errorf("body is larger than %d bytes", metadataMax)
	}
	return body, nil
}
