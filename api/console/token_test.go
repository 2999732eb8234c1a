package console

import (
	"net/http/httptest"
	"testing"
)

// FuzzToken: whatever a client asks for, a token is found or not, and nothing falls over.
func FuzzToken(f *testing.F) {
	for _, q := range []string{"token=a", "path=%3Ftoken%3Da", "path=a%3Fb%3Dc%26token%3Da", "path=%3F%25", "token=a&token=b", ";", "%zz"} {
		f.Add(q, "token=c")
	}
	f.Fuzz(func(t *testing.T, query, cookie string) {
		r := httptest.NewRequest("GET", "/console/websockify", nil)
		r.URL.RawQuery = query
		r.Header.Set("Cookie", cookie)
		got := token(r)
		if q := r.URL.Query().Get("token"); q != "" && got != q {
			t.Errorf("the query's token is %q, found was %q", q, got)
		}
	})
}
