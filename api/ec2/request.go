package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
)

// maxForm is the most that a request's parameters may take, in bytes.
const maxForm = 1 << 20

// form is a request as it came.
type form struct {
	method   string
	bodyHash string // hexadecimal SHA-256
	values   url.Values
	params   *param
}

type formKey struct{}

func formOf(r *http.Request) *form { return r.Context().Value(formKey{}).(*form) }

// action gives the path of the operation that a request names, /Action, whether its parameters are in the query or in the body.
func action(r *http.Request) (string, *http.Request, error) {
	f := &form{method: r.Method, values: r.URL.Query()}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxForm))
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return "", nil, err
	case err != nil:
		return "", nil, fault.Wrap(fault.Invalid, err, "The request's body could not be read.")
	}
	sum := sha256.Sum256(body)
	f.bodyHash = hex.EncodeToString(sum[:])
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		in, err := url.ParseQuery(string(body))
		if err != nil {
			return "", nil, fault.Coded(fault.Invalid, "MalformedQueryString", "The query string contains a syntax error.")
		}
		maps.Copy(f.values, in)
	default:
		return "", nil, fault.Coded(fault.Invalid, "InvalidRequest", "The method %s is not served: use GET or POST.", api.Clip(r.Method))
	}
	name := f.values.Get("Action")
	if name == "" {
		return "", nil, fault.Coded(fault.Invalid, "MissingAction", "The request is missing an action.")
	}
	if f.params, err = tree(f.values); err != nil {
		return "", nil, err
	}
	r = r.Clone(context.WithValue(r.Context(), formKey{}, f))
	r.Method, r.Body = http.MethodPost, http.NoBody
	r.ContentLength = 0
	return "/" + url.PathEscape(name), r, nil
}

// signed gives who signed the request.
func (d *dialect) signed(c *api.Context) (*api.Caller, error) {
	f := formOf(c.R)
	q := identity.EC2Request{Host: c.R.Host, Verb: f.method, Path: c.R.URL.EscapedPath(), BodyHash: f.bodyHash, Params: map[string]string{}, Headers: map[string]string{"Host": c.R.Host}}
	for k, v := range f.values {
		q.Params[k] = v[0]
	}
	for k, v := range c.R.Header {
		q.Headers[k] = strings.Join(v, ",")
	}
	q.Access, q.Signature = q.Params["AWSAccessKeyId"], q.Params["Signature"]
	if v := q.Params["X-Amz-Credential"]; v != "" {
		q.Access, _, _ = strings.Cut(v, "/")
		q.Signature = q.Params["X-Amz-Signature"]
	}
	if v := c.R.Header.Get("Authorization"); v != "" {
		_, access, _ := strings.Cut(v, "Credential=")
		q.Access, _, _ = strings.Cut(access, "/")
		_, signature, _ := strings.Cut(v, "Signature=")
		q.Signature, _, _ = strings.Cut(signature, ",")
	}
	if q.Access == "" {
		return nil, fault.Coded(fault.Unauthorized, "MissingAuthenticationToken", "The request must contain a signature with an access key.")
	}
	return d.cfg.Signed(c.R.Context(), q)
}

// param is a parameter: a value, or what its parts are, by name or number.
type param struct {
	value string
	parts map[string]*param
}

// maxDepth is how many parts a parameter's name may have.
const maxDepth = 8

// tree takes the names of parameters, such as Filter.1.Value.2, apart.
func tree(values url.Values) (*param, error) {
	root := &param{}
	for name, vs := range values {
		parts := strings.Split(name, ".")
		if len(parts) > maxDepth {
			return nil, fault.Coded(fault.Invalid, "UnknownParameter", "The parameter %s is not recognized", api.Clip(name))
		}
		at := root
		for _, part := range parts {
			if at.parts == nil {
				at.parts = map[string]*param{}
			}
			if at.parts[part] == nil {
				at.parts[part] = &param{}
			}
			at = at.parts[part]
		}
		at.value = vs[0]
	}
	return root, nil
}

// Part gives a part, which is empty where there is none.
func (p *param) Part(name string) *param {
	if x := p.parts[name]; x != nil {
		return x
	}
	return &param{}
}

// has tells whether there is such a part.
func (p *param) has(name string) bool { return p.parts[name] != nil }

// str gives a part's value.
func (p *param) str(name string) string { return p.Part(name).value }

// list gives the numbered elements of a part, in order: Name.1, Name.2, … A name written with a part of its own, as in Name.member.1 or
// Name.Item.1, is left to the caller.
func (p *param) list(name string) []*param {
	x := p.Part(name)
	var numbers []int
	for k := range x.parts {
		if n, err := strconv.Atoi(k); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	out := make([]*param, len(numbers))
	for i, n := range numbers {
		out[i] = x.parts[strconv.Itoa(n)]
	}
	return out
}

// strs gives the values of a list.
func (p *param) strs(name string) []string {
	var out []string
	for _, x := range p.list(name) {
		out = append(out, x.value)
	}
	return out
}

// flag gives a truth value; what is no such is false, as missing ones are.
func (p *param) flag(name string) bool { return strings.EqualFold(p.str(name), "true") }

// truth gives a truth value, where there is one.
func (p *param) truth(name string) (value, set bool, err error) {
	switch v := p.str(name); strings.ToLower(v) {
	case "":
		return false, false, nil
	case "true":
		return true, true, nil
	case "false":
		return false, true, nil
	default:
		return false, true, badValue("Value (%s) for parameter %s is invalid. It must be true or false.", api.Clip(v), name)
	}
}

// number gives a whole number between low and high, or otherwise where there is none.
func (p *param) number(name string, low, high, otherwise int) (int, error) {
	v := p.str(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, badValue("Value (%s) for parameter %s is invalid. It must be a number from %d to %d.", api.Clip(v), name, low, high)
	}
	return n, nil
}

// request is one call of an operation.
type request struct {
	*api.Context
	params *param
}

func (q *request) str(name string) string    { return q.params.str(name) }
func (q *request) list(name string) []*param { return q.params.list(name) }
func (q *request) strs(name string) []string { return q.params.strs(name) }
func (q *request) flag(name string) bool     { return q.params.flag(name) }
func (q *request) Params() *param            { return q.params }
func (q *request) must(name string) (string, error) {
	if v := q.str(name); v != "" {
		return v, nil
	}
	return "", missing(name)
}

// common are the parameters of every operation.
var common = []string{"Action", "Version", "DryRun", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp", "Expires", "SecurityToken",
	"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token"}

// known refuses what the operation does not know, so that nothing that was asked for is left out in silence.
func (q *request) known(names []string) error {
	for _, name := range slices.Sorted(maps.Keys(q.params.parts)) {
		if !slices.Contains(common, name) && !slices.Contains(names, name) {
			return fault.Coded(fault.Invalid, "UnknownParameter", "The parameter %s is not recognized", api.Clip(name))
		}
	}
	_, _, err := q.params.truth("DryRun")
	return err
}

// badValue refuses a parameter's value.
func badValue(format string, args ...any) error {
	return fault.Coded(fault.Invalid, "InvalidParameterValue", format, args...)
}

func missing(name string) error {
	return fault.Coded(fault.Invalid, "MissingParameter", "The request must contain the parameter %s", name)
}

// stamp writes a time as EC2 does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
