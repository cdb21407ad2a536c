package anonymous_test

import (
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
)

func TestAuthenticate(t *testing.T) {
	a := anonymous.New("anyone", anonymous.Config{})
	id, err := a.Authenticate(t.Context(), &authn.Request{Authorization: "Basic YTpi"})
	if err != nil {
		t.Fatal(err)
	}
	if id.Authenticated || id.Kind != "anonymous" || id.Authenticator != "anyone" || id.Subject != "" {
		t.Errorf("identity is %+v", id)
	}
}
