package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// OAuthRequest is a request signed by OAuth 1.0 (RFC 5849).
type OAuthRequest struct {
	Method, URL string            // as the client sent it, without a query
	Params      map[string]string // the oauth_… parameters of the Authorization header
	Query       url.Values
}

// requestTokenLife is how long a request token may be authorized and used.
const requestTokenLife = 8 * time.Hour

// verifyOAuth checks signature and time against the consumer's and the token's secret.
func (i *Identity) verifyOAuth(q OAuthRequest, consumer, token string) error {
	at, err := strconv.ParseInt(q.Params["oauth_timestamp"], 10, 64)
	if err != nil || i.now().Sub(time.Unix(at, 0)).Abs() > skew {
		return unauthorized("the time of an OAuth request is missing or off")
	}
	key := escapeV4(consumer) + "&" + escapeV4(token)
	want := ""
	switch q.Params["oauth_signature_method"] {
	case "PLAINTEXT":
		want = key
	case "HMAC-SHA1":
		want = base64.StdEncoding.EncodeToString(mac(sha1.New, []byte(key), baseString(q)))
	case "HMAC-SHA256":
		want = base64.StdEncoding.EncodeToString(mac(sha256.New, []byte(key), baseString(q)))
	default:
		return unauthorized("the OAuth signature method %q is not served", q.Params["oauth_signature_method"])
	}
	if !hmac.Equal([]byte(want), []byte(q.Params["oauth_signature"])) {
		return unauthorized("wrong OAuth signature")
	}
	return nil
}

// baseString is the signature base string of RFC 5849, section 3.4.1.
func baseString(q OAuthRequest) string {
	var pairs []string
	for k, v := range q.Params {
		if k != "oauth_signature" && k != "realm" {
			pairs = append(pairs, escapeV4(k)+"="+escapeV4(v))
		}
	}
	for k, vs := range q.Query {
		for _, v := range vs {
			pairs = append(pairs, escapeV4(k)+"="+escapeV4(v))
		}
	}
	slices.Sort(pairs)
	return q.Method + "&" + escapeV4(q.URL) + "&" + escapeV4(strings.Join(pairs, "&"))
}

func (i *Identity) consumerSecret(r store.Reader, q OAuthRequest) (*model.IdentityRecord, string, error) {
	rec, err := GetRecord(r, Consumers, q.Params["oauth_consumer_key"])
	if err != nil {
		return nil, "", unauthorized("there is no OAuth consumer %q", q.Params["oauth_consumer_key"])
	}
	secret, err := i.Secret(rec)
	return rec, secret, err
}

// CreateConsumer makes a consumer and gives its secret, which is not shown again.
func (i *Identity) CreateConsumer(ctx context.Context, description string, extra map[string]any) (*model.IdentityRecord, string, error) {
	rec := &model.IdentityRecord{Collection: Consumers, Enabled: true, Body: map[string]any{"description": description, "extra": extra}}
	secret := randomSecret()
	out, err := i.CreateRecord(ctx, rec, secret)
	return out, secret, err
}

// RequestToken makes a request token for a consumer that signed for it.
func (i *Identity) RequestToken(ctx context.Context, q OAuthRequest, project model.ID) (*model.IdentityRecord, string, error) {
	r := i.store.Snapshot()
	consumer, secret, err := i.consumerSecret(r, q)
	if err != nil {
		return nil, "", err
	}
	if err := i.verifyOAuth(q, secret, ""); err != nil {
		return nil, "", err
	}
	if _, err := GetProject(r, project); err != nil {
		return nil, "", err
	}
	token := randomSecret()
	row := &model.IdentityRecord{Collection: RequestTokens, ID: model.NewHexID(), ParentID: consumer.ID, PeerID: project, Enabled: true,
		ExpiresAt: i.now().Add(requestTokenLife).Truncate(time.Microsecond)}
	if err := i.setSecret(row, token); err != nil {
		return nil, "", err
	}
	_, err = i.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := GetRecord(tx, Consumers, consumer.ID); err != nil {
			return err
		}
		if _, err := GetProject(tx, project); err != nil {
			return err
		}
		mark(tx, consumer.ID, project)
		return store.IdentityRecords.Put(tx, row)
	})
	return row, token, err
}

// AuthorizeRequest lets the token's user hand roles that he has on the request token's
// project to the consumer. It gives the verifier.
func (i *Identity) AuthorizeRequest(ctx context.Context, t *Token, id model.ID, refs []RoleRef) (string, error) {
	if t.Delegated() {
		return "", forbidden("You are not authorized to perform the requested action: authorize a request token with a delegated token.")
	}
	verifier := randomSecret()[:16]
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		rec, err := GetRecord(tx, RequestTokens, id)
		if err != nil {
			return err
		}
		if !i.now().Before(rec.ExpiresAt) {
			return unauthorized("the request token has expired")
		}
		on, err := delegator(tx, t, rec.PeerID)
		if err != nil {
			return err
		}
		roles, err := pickRoles(tx, on, refs)
		if err != nil {
			if fault.Is(err, fault.Invalid) {
				return unauthorized("the user has not the roles that he hands on")
			}
			return err
		}
		row := copyRecord(rec)
		row.OwnerID = t.UserID
		row.Body["roles"], row.Body["verifier"] = roles, fastHash(verifier)
		mark(tx, t.UserID)
		return store.IdentityRecords.Put(tx, row)
	})
	return verifier, err
}

// AccessToken turns an authorized request token into an access token.
func (i *Identity) AccessToken(ctx context.Context, q OAuthRequest) (*model.IdentityRecord, string, error) {
	r := i.store.Snapshot()
	consumer, secret, err := i.consumerSecret(r, q)
	if err != nil {
		return nil, "", err
	}
	request, err := GetRecord(r, RequestTokens, q.Params["oauth_token"])
	if err != nil || request.ParentID != consumer.ID {
		return nil, "", unauthorized("there is no request token %q of the consumer", q.Params["oauth_token"])
	}
	requestSecret, err := i.Secret(request)
	if err != nil {
		return nil, "", err
	}
	if err := i.verifyOAuth(q, secret, requestSecret); err != nil {
		return nil, "", err
	}
	ok, err := i.hash.verify(ctx, body(request, "verifier"), q.Params["oauth_verifier"])
	switch {
	case err != nil:
		return nil, "", err
	case !ok || request.OwnerID == "" || !i.now().Before(request.ExpiresAt):
		return nil, "", unauthorized("the request token is not authorized, or has expired")
	}
	token := randomSecret()
	row := &model.IdentityRecord{Collection: AccessTokens, ID: model.NewHexID(), OwnerID: request.OwnerID, ParentID: consumer.ID, PeerID: request.PeerID,
		Enabled: true, Body: map[string]any{"roles": request.Body["roles"]}}
	if err := i.setSecret(row, token); err != nil {
		return nil, "", err
	}
	_, err = i.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := GetRecord(tx, RequestTokens, request.ID); err != nil {
			return errUnauthorized // somebody used it meanwhile
		}
		for _, check := range []error{second(GetRecord(tx, Consumers, row.ParentID)), second(GetUser(tx, row.OwnerID)), second(GetProject(tx, row.PeerID))} {
			if check != nil {
				return check
			}
		}
		if err := store.IdentityRecords.Delete(tx, request.Key()); err != nil {
			return err
		}
		mark(tx, row.OwnerID, row.ParentID, row.PeerID)
		return store.IdentityRecords.Put(tx, row)
	})
	return row, token, err
}

func second[T any](_ T, err error) error { return err }

// VerifyOAuth checks a login by OAuth and gives the access token's id.
func (i *Identity) VerifyOAuth(_ context.Context, q OAuthRequest) (model.ID, error) {
	r := i.store.Snapshot()
	consumer, secret, err := i.consumerSecret(r, q)
	if err != nil {
		return "", err
	}
	rec, err := GetRecord(r, AccessTokens, q.Params["oauth_token"])
	if err != nil || rec.ParentID != consumer.ID {
		return "", unauthorized("there is no access token %q of the consumer", q.Params["oauth_token"])
	}
	tokenSecret, err := i.Secret(rec)
	if err != nil {
		return "", err
	}
	return rec.ID, i.verifyOAuth(q, secret, tokenSecret)
}

// UserAccessTokens gives the access tokens that a user has authorized.
func UserAccessTokens(r store.Reader, user model.ID) []*model.IdentityRecord {
	return ownedRecords(r, AccessTokens, user)
}
