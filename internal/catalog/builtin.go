package catalog

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"fmt"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
)

var (
	//go:embed chat.json
	chatJSON []byte
	//go:embed messaging.json
	messagingJSON []byte
	// The types of message that the channels of both have.
	//go:embed messages.json
	messagesJSON []byte
)

// families are the built-in definitions with the versions there are of each:
// those of chat that clients insist on and the ones beside them that a range may
// find, and the one of messaging. All versions are served by the same code, so
// that a client and a bot may ask for different ones.
//
// Compat: the cloud knows each of them as a release of its own.
var families = []struct {
	definition  []byte
	prefix      string
	first, last int
}{
	{chatJSON, "0.7.", 3, 9},
	{chatJSON, "1.0.", 0, 9},
	{messagingJSON, "0.2.", 3, 3},
}

// builtins makes the definitions of all integrations that Parley brings along.
func builtins() []*Integration {
	var all []*Integration
	for _, f := range families {
		for patch := f.first; patch <= f.last; patch++ {
			all = append(all, builtin(f.definition, fmt.Sprint(f.prefix, patch)))
		}
	}
	return all
}

// releasedAt is when the built-in definitions were made: 2026-01-01T00:00:00Z.
const releasedAt api.Time = 1767225600000

func builtin(text []byte, version string) *Integration {
	d := &Integration{}
	parse(text, d)
	for name, c := range d.Channels {
		parse(messagesJSON, &c.Messages)
		d.Channels[name] = c
	}
	d.ID = versionID(d.Name, version)
	d.Version = version
	d.CreatedAt, d.UpdatedAt = releasedAt, releasedAt
	d.Builtin = true
	d.ready()
	return d
}

func parse(text []byte, into any) {
	if err := json.Unmarshal(text, into, json.RejectUnknownMembers(true)); err != nil {
		panic("catalog: built-in definition: " + err.Error())
	}
}

// versionID derives the id of a built-in version from its name and number, so
// that the same version has the same id on every server and for ever: clients
// and lock files keep it.
func versionID(name, version string) string {
	sum := sha256.Sum256([]byte("parley integration " + name + "@" + version))
	b := sum[:16]
	b[0] &= 0x3f // a ULID begins with a digit up to 7
	return "intver_" + base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding).EncodeToString(b)
}
