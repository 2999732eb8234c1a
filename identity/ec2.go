package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/url"
	"slices"
	"strings"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// EC2Request is a request that was signed with an EC2 credential: what the signature covers.
type EC2Request struct {
	Access    string
	Signature string
	Host      string // of version 2
	Verb      string
	Path      string
	Params    map[string]string
	Headers   map[string]string // of version 4
	BodyHash  string            // of version 4, hexadecimal SHA-256
}

// ec2Secret finds the credential with an access key.
func (i *Identity) ec2Secret(r store.Reader, access string) (*model.IdentityRecord, string, error) {
	rec, err := GetRecord(r, Credentials, accessID(access))
	if err != nil {
		return nil, "", unauthorized("there is no EC2 credential with that access key")
	}
	blob, err := i.Secret(rec)
	if err != nil {
		return nil, "", err
	}
	var b struct{ Access, Secret string }
	if err := json.Unmarshal([]byte(blob), &b); err != nil || b.Access != access {
		return nil, "", unauthorized("the EC2 credential %s is damaged", rec.ID)
	}
	return rec, b.Secret, nil
}

// IssueEC2 makes a token of a request that was signed with an EC2 credential, version 2
// (AWS "Signature Version 2") or 4, on the credential's project. A signature older than
// 15 minutes is not taken.
func (i *Identity) IssueEC2(ctx context.Context, q EC2Request) (string, *Token, error) {
	r := i.store.Snapshot()
	rec, secret, err := i.ec2Secret(r, q.Access)
	if err != nil {
		return "", nil, err
	}
	ok := false
	if q.Params["SignatureVersion"] == "2" {
		ok = fresh(q.Params["Timestamp"], "2006-01-02T15:04:05Z", i.now()) && verifyV2(secret, q)
	} else {
		ok = verifyV4(secret, q, i.now())
	}
	if !ok {
		return "", nil, unauthorized("wrong EC2 signature of credential %s", rec.ID)
	}
	return i.issueEC2(ctx, r, rec)
}

// IssueS3 makes a token where the signature is that of the string to sign under the
// credential's secret: version 4 of service s3, or the older one of S3 (HMAC-SHA1).
func (i *Identity) IssueS3(ctx context.Context, access, signature string, stringToSign []byte) (string, *Token, error) {
	r := i.store.Snapshot()
	rec, secret, err := i.ec2Secret(r, access)
	if err != nil {
		return "", nil, err
	}
	ok := false
	lines := strings.Split(string(stringToSign), "\n")
	if len(lines) == 4 && lines[0] == "AWS4-HMAC-SHA256" {
		scope := strings.Split(lines[2], "/")
		ok = len(scope) == 4 && scope[2] == "s3" && scope[3] == "aws4_request" &&
			sameText(hex.EncodeToString(mac(sha256.New, keyV4(secret, scope[0], scope[1], scope[2]), string(stringToSign))), signature)
	} else {
		ok = sameText(base64.StdEncoding.EncodeToString(mac(sha1.New, []byte(secret), string(stringToSign))), signature)
	}
	if !ok {
		return "", nil, unauthorized("wrong S3 signature of credential %s", rec.ID)
	}
	return i.issueEC2(ctx, r, rec)
}

func (i *Identity) issueEC2(ctx context.Context, r store.Snapshot, rec *model.IdentityRecord) (string, *Token, error) {
	now := i.now().Truncate(time.Microsecond)
	c := Claims{UserID: rec.OwnerID, Methods: MethodEC2, IssuedAt: now, ExpiresAt: now.Add(i.cfg.TokenTTL), Audit: newAuditID()}
	return i.grant(ctx, r, c, nil, ScopeRequest{Asked: true, Kind: ProjectScope, Ref: Ref{ID: rec.ParentID}})
}

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func sameText(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

const ec2Life = 15 * time.Minute

func fresh(at, layout string, now time.Time) bool {
	t, err := time.Parse(layout, at)
	return err == nil && now.Sub(t).Abs() <= ec2Life
}

// escapeV4 is the URI encoding of the signature specification: all but unreserved
// characters (RFC 3986) as %XX.
func escapeV4(s string) string {
	return strings.NewReplacer("+", "%20", "*", "%2A", "%7E", "~").Replace(url.QueryEscape(s))
}

func canonicalQuery(params map[string]string, without string) string {
	keys := make([]string, 0, len(params))
	for k := range params {
		if k != without {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for n, k := range keys {
		keys[n] = escapeV4(k) + "=" + escapeV4(params[k])
	}
	return strings.Join(keys, "&")
}

func verifyV2(secret string, q EC2Request) bool {
	h := sha256.New
	switch q.Params["SignatureMethod"] {
	case "HmacSHA256":
	case "HmacSHA1":
		h = sha1.New
	default:
		return false
	}
	text := strings.Join([]string{q.Verb, strings.ToLower(q.Host), q.Path, canonicalQuery(q.Params, "Signature")}, "\n")
	return sameText(base64.StdEncoding.EncodeToString(mac(h, []byte(secret), text)), q.Signature)
}

func keyV4(secret, date, region, service string) []byte {
	k := mac(sha256.New, []byte("AWS4"+secret), date)
	k = mac(sha256.New, k, region)
	k = mac(sha256.New, k, service)
	return mac(sha256.New, k, "aws4_request")
}

func verifyV4(secret string, q EC2Request, now time.Time) bool {
	headers := map[string]string{}
	for k, v := range q.Headers {
		headers[strings.ToLower(k)] = strings.Join(strings.Fields(v), " ")
	}
	part := func(name string) string {
		_, rest, ok := strings.Cut(headers["authorization"], name+"=")
		if !ok {
			return ""
		}
		v, _, _ := strings.Cut(rest, ",")
		return strings.TrimSpace(v)
	}
	credential, signed := part("Credential"), part("SignedHeaders")
	date, query := headers["x-amz-date"], canonicalQuery(q.Params, "")
	if credential == "" { // presigned: all of it is in the query
		credential, signed, date = q.Params["X-Amz-Credential"], q.Params["X-Amz-SignedHeaders"], q.Params["X-Amz-Date"]
		query = canonicalQuery(q.Params, "X-Amz-Signature")
	} else if q.Verb == "POST" {
		query = ""
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[0] != q.Access || scope[4] != "aws4_request" || !strings.HasPrefix(date, scope[1]) || !fresh(date, "20060102T150405Z", now) {
		return false
	}
	var lines strings.Builder
	for _, name := range strings.Split(signed, ";") {
		if v, ok := headers[name]; ok {
			lines.WriteString(name + ":" + v + "\n")
		}
	}
	if lines.Len() == 0 {
		lines.WriteString("\n")
	}
	request := strings.Join([]string{q.Verb, q.Path, query, lines.String(), signed, q.BodyHash}, "\n")
	sum := sha256.Sum256([]byte(request))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join(scope[1:], "/"), hex.EncodeToString(sum[:])}, "\n")
	return sameText(hex.EncodeToString(mac(sha256.New, keyV4(secret, scope[1], scope[2], scope[3]), text)), q.Signature)
}

// EC2Credential gives the credential with an access key, or fault.NotFound.
func EC2Credential(r store.Reader, access string) (*model.IdentityRecord, error) {
	rec, err := GetRecord(r, Credentials, accessID(access))
	if err != nil {
		return nil, notFound("credential", access)
	}
	return rec, nil
}
