// A registry with the referrers API of the OCI distribution specification 1.1, for the tests: the one that
// go-containerregistry tests itself with. Blobs are kept in a directory, manifests and tags in memory.
//
// Usage: referrers_registry ADDRESS DIRECTORY
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

// The specification has a registry say in its answer to a push that it has seen the subject. This one lists referrers
// and does not say so; clients would keep the fallback tag.
func sayingSubjects(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && r.Header.Get("Content-Type") != "application/octet-stream" {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			var manifest struct{ Subject struct{ Digest string } }
			if json.Unmarshal(body, &manifest) == nil && manifest.Subject.Digest != "" {
				w.Header().Set("OCI-Subject", manifest.Subject.Digest)
			}
		}
		next.ServeHTTP(w, r)
	})
}

func main() {
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(os.Args[2])),
		registry.Logger(log.New(io.Discard, "", 0)),
	)
	log.Fatal(http.ListenAndServe(os.Args[1], sayingSubjects(handler)))
}
