package identity_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
)

func TestTrusts(t *testing.T) {
	c := newCloud(t)
	or, ee, p := c.user("trustor"), c.user("trustee"), c.project("p")
	c.assign("member", model.Assignment{UserID: or.ID, ProjectID: p.ID})
	_, tok := c.login(password(or, on(p.ID)))
	base := identity.Trust{TrustorID: or.ID, TrusteeID: ee.ID, ProjectID: p.ID, RemainingUses: -1}
	refs := []identity.RoleRef{{Name: "reader"}}
	make := func(change func(*identity.Trust)) *identity.Trust {
		t.Helper()
		want := base
		change(&want)
		tr, err := c.CreateTrust(c.ctx, tok, want, refs)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	use := func(u *model.User, id model.ID) (string, *identity.Token, error) {
		return c.Issue(c.ctx, password(u, identity.ScopeRequest{Asked: true, TrustID: id}))
	}

	plain := make(func(*identity.Trust) {})
	text, got, err := use(ee, plain.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.UserID != ee.ID || got.Project.ID != p.ID || !slices.Equal(names(got.Roles), []string{"reader"}) {
		t.Errorf("the trustee's token: user %s, roles %v", got.User.Name, names(got.Roles))
	}
	_, _, err = use(or, plain.ID)
	wantKind(t, err, fault.Forbidden)
	_, err = c.CreateTrust(c.ctx, got, identity.Trust{TrustorID: ee.ID, TrusteeID: or.ID, ProjectID: p.ID, RemainingUses: -1}, refs)
	wantKind(t, err, fault.Forbidden)
	_, _, err = c.Issue(c.ctx, identity.Login{Methods: identity.MethodToken, Token: text, Scope: identity.ScopeRequest{Asked: true}})
	wantKind(t, err, fault.Forbidden)

	_, got, err = use(ee, make(func(w *identity.Trust) { w.Impersonation = true }).ID)
	if err != nil || got.UserID != or.ID {
		t.Errorf("impersonation: %+v, %v", got, err)
	}

	twice := make(func(w *identity.Trust) { w.RemainingUses = 2 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok, used := 0, 0
	for range 5 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, _, err := use(ee, twice.ID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ok++
			case fault.Is(err, fault.Forbidden):
				used++
			}
		}()
	}
	wg.Wait()
	if ok != 2 || used != 3 {
		t.Errorf("of 5 uses of a trust for 2, %d were let through and %d refused", ok, used)
	}

	short := make(func(w *identity.Trust) { w.ExpiresAt = c.clock.now().Add(time.Minute) })
	limited, got, err := use(ee, short.ID)
	if err != nil || got.ExpiresAt.After(short.ExpiresAt) {
		t.Errorf("a token outlives its trust: %v, %v", got, err)
	}
	c.clock.advance(time.Minute)
	c.invalid(limited, "the trust expired")
	_, _, err = use(ee, short.ID)
	wantKind(t, err, fault.Unauthorized)

	// The trustor's loss is the trustee's.
	c.valid(text)
	if err := c.Unassign(c.ctx, model.Assignment{RoleID: c.role("member"), UserID: or.ID, ProjectID: p.ID}); err != nil {
		t.Fatal(err)
	}
	c.invalid(text, "the trustor lost his role")
	for name, bad := range map[string]identity.Trust{
		"another's":      {TrustorID: ee.ID, TrusteeID: or.ID, ProjectID: p.ID, RemainingUses: -1},
		"without rights": base,
		"no project":     {TrustorID: or.ID, TrusteeID: ee.ID, RemainingUses: -1},
	} {
		if _, err := c.CreateTrust(c.ctx, tok, bad, refs); err == nil {
			t.Errorf("a trust was made: %s", name)
		}
	}
}

func TestApplicationCredentialFollowsItsUser(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	c.assign("manager", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	_, tok := c.login(password(u, on(p.ID)))
	ac, secret, err := c.CreateAppCredential(c.ctx, tok, identity.AppCredential{Name: "a", ExpiresAt: c.clock.now().Add(30 * time.Minute)}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	use := identity.Login{Methods: identity.MethodAppCredential, AppCredID: ac.ID, AppCredSecret: secret}
	text, got := c.login(use)
	if !slices.Equal(names(got.Roles), []string{"manager", "member", "reader"}) || !got.ExpiresAt.Equal(ac.ExpiresAt) || !got.Delegated() {
		t.Errorf("roles %v, expires %v", names(got.Roles), got.ExpiresAt)
	}
	// Roles that the user loses are lost here too; what he keeps stays.
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	if err := c.Unassign(c.ctx, model.Assignment{RoleID: c.role("manager"), UserID: u.ID, ProjectID: p.ID}); err != nil {
		t.Fatal(err)
	}
	if got := c.valid(text); !slices.Equal(names(got.Roles), []string{"member", "reader"}) {
		t.Errorf("after the loss of manager: %v", names(got.Roles))
	}
	// A role that the user gains is not.
	c.assign("service", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	if got := c.valid(text); got.HasRole("service") {
		t.Errorf("after the gain of service: %v", names(got.Roles))
	}
	c.clock.advance(31 * time.Minute)
	c.invalid(text, "expired")
	_, _, err = c.Issue(c.ctx, use)
	wantKind(t, err, fault.Unauthorized)
}

// An unrestricted application credential may hand on what it has, on its own project.
func TestUnrestrictedApplicationCredentialStaysOnItsProject(t *testing.T) {
	c := newCloud(t)
	u, p, q := c.user("u"), c.project("p"), c.project("q")
	c.assign("admin", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	c.assign("admin", model.Assignment{UserID: u.ID, ProjectID: q.ID})
	_, tok := c.login(password(u, on(p.ID)))
	ac, secret, err := c.CreateAppCredential(c.ctx, tok, identity.AppCredential{Name: "a", Unrestricted: true}, []identity.RoleRef{{Name: "member"}}, "chosen by the user")
	if err != nil || secret != "chosen by the user" {
		t.Fatal(secret, err)
	}
	_, tok = c.login(identity.Login{Methods: identity.MethodAppCredential, AppCredName: "a", User: identity.Ref{ID: u.ID}, AppCredSecret: secret})
	if tok.Delegated() || tok.AppCred.ID != ac.ID {
		t.Fatalf("%+v", tok.AppCred)
	}
	try := func(project model.ID, role string) error {
		_, err := c.CreateTrust(c.ctx, tok, identity.Trust{TrustorID: u.ID, TrusteeID: c.adminID(), ProjectID: project, RemainingUses: -1}, []identity.RoleRef{{Name: role}})
		return err
	}
	if err := try(p.ID, "member"); err != nil {
		t.Error(err)
	}
	wantKind(t, try(p.ID, "admin"), fault.Forbidden)
	wantKind(t, try(q.ID, "member"), fault.Forbidden)
	if _, _, err := c.CreateAppCredential(c.ctx, tok, identity.AppCredential{Name: "b"}, []identity.RoleRef{{Name: "admin"}}, ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("an application credential made one with more roles: %v", err)
	}
}

func hmacText(h string, key, text string) []byte {
	m := hmac.New(sha256.New, []byte(key))
	if h == "sha1" {
		m = hmac.New(sha1.New, []byte(key))
	}
	m.Write([]byte(text))
	return m.Sum(nil)
}

func TestEC2Signatures(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	rec, err := c.CreateRecord(c.ctx, &model.IdentityRecord{Collection: identity.Credentials, OwnerID: u.ID, ParentID: p.ID, Body: map[string]any{"type": "ec2"}},
		`{"access": "AKIDEXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}`)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(rec.Secret, "wJalr") {
		t.Error("the secret is stored in clear text")
	}
	const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

	// The example "get-vanilla" of AWS's signature version 4 test suite, at its own time.
	c.clock.mu.Lock()
	c.clock.at = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	c.clock.mu.Unlock()
	v4 := identity.EC2Request{Access: "AKIDEXAMPLE", Verb: "GET", Path: "/", Signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
		BodyHash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Headers: map[string]string{"Host": "example.amazonaws.com", "X-Amz-Date": "20150830T123600Z",
			"Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"}}
	_, tok, err := c.IssueEC2(c.ctx, v4)
	if err != nil {
		t.Fatalf("version 4: %v", err)
	}
	if tok.UserID != u.ID || tok.Project.ID != p.ID || !slices.Equal(tok.Methods.Names(), []string{"ec2credential"}) {
		t.Errorf("the token is %+v", tok.Claims)
	}
	for name, spoil := range map[string]func(*identity.EC2Request){
		"signature": func(q *identity.EC2Request) { q.Signature = strings.Repeat("0", 64) },
		"path":      func(q *identity.EC2Request) { q.Path = "/x" },
		"verb":      func(q *identity.EC2Request) { q.Verb = "POST" },
		"body":      func(q *identity.EC2Request) { q.BodyHash = strings.Repeat("0", 64) },
		"access":    func(q *identity.EC2Request) { q.Access = "nobody" },
		"headers":   func(q *identity.EC2Request) { q.Headers = nil },
		"query":     func(q *identity.EC2Request) { q.Params = map[string]string{"a": "b"} },
	} {
		bad := v4
		spoil(&bad)
		if _, _, err := c.IssueEC2(c.ctx, bad); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("with another %s: %v", name, err)
		}
	}
	c.clock.advance(16 * time.Minute)
	_, _, err = c.IssueEC2(c.ctx, v4)
	wantKind(t, err, fault.Unauthorized)

	stamp := c.clock.now().Format("2006-01-02T15:04:05Z")
	for method, h := range map[string]string{"HmacSHA256": "sha256", "HmacSHA1": "sha1"} {
		v2 := identity.EC2Request{Access: "AKIDEXAMPLE", Verb: "GET", Host: "API.example.com", Path: "/", Params: map[string]string{
			"SignatureVersion": "2", "SignatureMethod": method, "Action": "Describe Things", "Timestamp": stamp, "AWSAccessKeyId": "AKIDEXAMPLE"}}
		text := "GET\napi.example.com\n/\nAWSAccessKeyId=AKIDEXAMPLE&Action=Describe%20Things&SignatureMethod=" + method + "&SignatureVersion=2&Timestamp=" + strings.ReplaceAll(url.QueryEscape(stamp), "+", "%20")
		v2.Signature = base64.StdEncoding.EncodeToString(hmacText(h, secret, text))
		if _, _, err := c.IssueEC2(c.ctx, v2); err != nil {
			t.Errorf("version 2, %s: %v", method, err)
		}
		v2.Verb = "POST"
		if _, _, err := c.IssueEC2(c.ctx, v2); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("version 2 with another verb: %v", err)
		}
	}

	old := "GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket/key"
	if _, _, err := c.IssueS3(c.ctx, "AKIDEXAMPLE", base64.StdEncoding.EncodeToString(hmacText("sha1", secret, old)), []byte(old)); err != nil {
		t.Errorf("S3, the older signature: %v", err)
	}
	toSign := "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/s3/aws4_request\nabc"
	key := "AWS4" + secret
	for _, part := range []string{"20150830", "us-east-1", "s3", "aws4_request"} {
		key = string(hmacText("sha256", key, part))
	}
	sig := hex.EncodeToString(hmacText("sha256", key, toSign))
	if _, _, err := c.IssueS3(c.ctx, "AKIDEXAMPLE", sig, []byte(toSign)); err != nil {
		t.Errorf("S3: %v", err)
	}
	_, _, err = c.IssueS3(c.ctx, "AKIDEXAMPLE", sig, []byte(strings.Replace(toSign, "/s3/", "/ec2/", 1)))
	wantKind(t, err, fault.Unauthorized)
}

func TestOAuth(t *testing.T) {
	c := newCloud(t)
	u, p := c.user("u"), c.project("p")
	c.assign("member", model.Assignment{UserID: u.ID, ProjectID: p.ID})
	_, tok := c.login(password(u, on(p.ID)))
	consumer, secret, err := c.CreateConsumer(c.ctx, "d", nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(method, token, tokenSecret, verifier string) identity.OAuthRequest {
		q := identity.OAuthRequest{Method: "POST", URL: "http://c.test/identity/v3/x", Params: map[string]string{"oauth_consumer_key": consumer.ID, "oauth_nonce": "n",
			"oauth_signature_method": method, "oauth_timestamp": fmt.Sprint(c.clock.now().Unix()), "oauth_version": "1.0"}}
		if token != "" {
			q.Params["oauth_token"] = token
		}
		if verifier != "" {
			q.Params["oauth_verifier"] = verifier
		}
		key := url.QueryEscape(secret) + "&" + url.QueryEscape(tokenSecret)
		var pairs []string
		for k, v := range q.Params {
			pairs = append(pairs, k+"="+url.QueryEscape(v))
		}
		slices.Sort(pairs)
		text := "POST&" + url.QueryEscape(q.URL) + "&" + url.QueryEscape(strings.Join(pairs, "&"))
		switch method {
		case "PLAINTEXT":
			q.Params["oauth_signature"] = key
		case "HMAC-SHA1":
			q.Params["oauth_signature"] = base64.StdEncoding.EncodeToString(hmacText("sha1", key, text))
		case "HMAC-SHA256":
			q.Params["oauth_signature"] = base64.StdEncoding.EncodeToString(hmacText("sha256", key, text))
		}
		return q
	}
	for _, method := range []string{"PLAINTEXT", "HMAC-SHA1", "HMAC-SHA256"} {
		t.Run(method, func(t *testing.T) {
			request, requestSecret, err := c.RequestToken(c.ctx, sign(method, "", "", ""), p.ID)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.AccessToken(c.ctx, sign(method, request.ID, requestSecret, "guess"))
			wantKind(t, err, fault.Unauthorized) // not authorized yet
			verifier, err := c.AuthorizeRequest(c.ctx, tok, request.ID, []identity.RoleRef{{Name: "reader"}})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.AccessToken(c.ctx, sign(method, request.ID, requestSecret, "guess"))
			wantKind(t, err, fault.Unauthorized)
			_, _, err = c.AccessToken(c.ctx, sign(method, request.ID, "wrong", verifier))
			wantKind(t, err, fault.Unauthorized)
			access, accessSecret, err := c.AccessToken(c.ctx, sign(method, request.ID, requestSecret, verifier))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.AccessToken(c.ctx, sign(method, request.ID, requestSecret, verifier))
			wantKind(t, err, fault.Unauthorized) // used
			id, err := c.VerifyOAuth(c.ctx, sign(method, access.ID, accessSecret, ""))
			if err != nil || id != access.ID {
				t.Fatal(id, err)
			}
			text, got := c.login(identity.Login{Methods: identity.MethodOAuth1, AccessTokenID: id})
			if got.UserID != u.ID || !slices.Equal(names(got.Roles), []string{"reader"}) || !got.Delegated() {
				t.Errorf("user %s, roles %v", got.User.Name, names(got.Roles))
			}
			late := sign(method, access.ID, accessSecret, "")
			late.Params["oauth_timestamp"] = "1"
			_, err = c.VerifyOAuth(c.ctx, late)
			wantKind(t, err, fault.Unauthorized)
			if err := c.DeleteRecord(c.ctx, identity.AccessTokens, access.ID); err != nil {
				t.Fatal(err)
			}
			c.invalid(text, "the access token is gone")
		})
	}
	request, _, err := c.RequestToken(c.ctx, sign("HMAC-SHA1", "", "", ""), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.AuthorizeRequest(c.ctx, tok, request.ID, []identity.RoleRef{{Name: "admin"}})
	wantKind(t, err, fault.Unauthorized)
	c.clock.advance(9 * time.Hour)
	if err := c.Tidy(c.ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(identity.ListRecords(c.Snapshot(), identity.RequestTokens)); n != 0 {
		t.Errorf("%d request tokens are left after their time", n)
	}
}

func TestMultiFactorRules(t *testing.T) {
	c := newCloud(t)
	u := c.user("u")
	set := func(options map[string]any) {
		t.Helper()
		if _, err := c.UpdateUser(c.ctx, u.ID, nil, func(u *model.User) error { u.Options = options; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(map[string]any{"multi_factor_auth_enabled": true, "multi_factor_auth_rules": []any{[]any{"password", "totp"}}})
	_, _, err := c.Issue(c.ctx, password(u, identity.ScopeRequest{}))
	wantKind(t, err, fault.Unauthorized)
	set(map[string]any{"multi_factor_auth_enabled": true, "multi_factor_auth_rules": []any{[]any{"password", "totp"}, []any{"password"}}})
	c.login(password(u, identity.ScopeRequest{}))
	set(map[string]any{"multi_factor_auth_rules": []any{[]any{"password", "totp"}}})
	c.login(password(u, identity.ScopeRequest{}))
	set(map[string]any{"lock_password": true})
	wantKind(t, c.ChangePassword(c.ctx, u.ID, "pw-u", "new"), fault.Invalid)
}
