package profile_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/profiles/profile"
)

// The rules need no keys: any sealed value will do.
var (
	first  = profile.Email{Subject: "profile/ann", Key: "K", Box: "1"}
	second = profile.Email{Subject: "profile/ann", Key: "K", Box: "2"}
)

func TestRules(t *testing.T) {
	t.Parallel()
	s := estest.For(t, profile.Rules{})
	s.When(profile.Register{Email: first}).Then(profile.Registered{Email: first})
	s.When(profile.ChangeEmail{Email: first}).ThenCode("NOT_REGISTERED")
	s.When(profile.Forget{}).ThenCode("NOT_REGISTERED")
	registered := s.Given(profile.Registered{Email: first})
	registered.When(profile.Register{Email: second}).ThenCode("REGISTERED")
	registered.When(profile.ChangeEmail{Email: second}).Then(profile.EmailChanged{Email: second})
	registered.When(profile.Forget{}).Then(profile.Forgotten{}).ThenState(profile.Profile{Registered: true, Forgotten: true})
	forgotten := registered.Given(profile.Forgotten{})
	forgotten.When(profile.Forget{}).ThenNothing()
	forgotten.When(profile.ChangeEmail{Email: second}).ThenCode("FORGOTTEN")
	s.Given(profile.Forgotten{}).When(profile.Register{Email: first}).ThenCode("FORGOTTEN")
}

func TestCodec(t *testing.T) {
	t.Parallel()
	estest.TestCodec(t, profile.Codec, []profile.Event{profile.Registered{Email: first}, profile.EmailChanged{Email: second}, profile.Forgotten{}})
}
