package catalog

import (
	"testing"
)

func TestCreateIntegration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, `{"name":"hooky","version":"0.1.0","url":"http://127.0.0.1:1"}`)
		if got, err := r.Lookup(t.Context(), d.ID); err != nil || got == nil || got.URL != "http://127.0.0.1:1" {
			t.Errorf("Lookup = %v, %v", got, err)
		}
	})
}
