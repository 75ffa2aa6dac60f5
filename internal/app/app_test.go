package app

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"parley/internal/delivery"
	"parley/internal/fault"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/spec"
)

func TestASecondStartKeepsEverything(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg Config
			first := start(t, func(c *Config) { engine(t, c); cfg = *c })
			c, err := ReadCredentials(cfg.Data)
			if err != nil {
				t.Fatal(err)
			}
			path := first.door(c.BotID)
			v := first.visit(path)
			v.say("hello")
			first.idle()
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}

			second := start(t, func(c *Config) { *c = cfg })
			again, err := ReadCredentials(cfg.Data)
			if err != nil || again != c {
				t.Errorf("the second start has %+v (%v), want %+v", again, err, c)
			}
			if got := second.door(c.BotID); got != path {
				t.Errorf("the door is %s, want %s", got, path)
			}
			v.server = second
			if got, want := v.texts(), []string{"hello", "hello"}; !slices.Equal(got, want) {
				t.Errorf("the conversation is %q, want %q: the message and its echo", got, want)
			}
			var bots struct {
				Bots []struct{ ID string } `json:"bots"`
			}
			if second.call("GET", "/v1/admin/bots", second.as(""), nil, &bots); len(bots.Bots) != 1 {
				t.Errorf("there are %d bots, want the echo bot alone", len(bots.Bots))
			}
		})
	}
}

// idle waits until everything that was handed over is delivered.
func (s *server) idle() {
	s.t.Helper()
	if err := s.parts.delivery.Idle(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func TestASecondServerNamesTheFirst(t *testing.T) {
	t.Parallel()
	first := start(t, nil)
	_, err := New(t.Context(), first.cfg)
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.Server.PID != os.Getpid() || locked.Server.URL != first.URL() {
		t.Errorf("got %v with %+v, want a LockedError with process %d and %s", err, locked, os.Getpid(), first.URL())
	}
}

func TestHealthFollowsThePhases(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.serve(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	ready := s.phase.Load()
	for _, c := range []struct {
		phase             phase
		healthz, readyz   int
		says              string
		other             int
		otherType, retrys string
	}{
		{*ready, 200, 200, "ready", 200, "", ""},
		{phase{name: "starting", doing: "opening the database"}, 200, 503, "starting: opening the database", 429, "RateLimited", "1"},
		{phase{name: "draining", doing: "finishing what is in flight", handler: ready.handler}, 200, 503, "draining: finishing what is in flight", 200, "", ""},
	} {
		s.phase.Store(&c.phase)
		if code, _ := get("/healthz"); code != c.healthz {
			t.Errorf("%s: /healthz answers %d, want %d", c.phase.name, code, c.healthz)
		}
		if code, text := get("/readyz"); code != c.readyz || strings.TrimSpace(text) != c.says {
			t.Errorf("%s: /readyz answers %d %q, want %d %q", c.phase.name, code, text, c.readyz, c.says)
		}
		if code, _ := get("/metrics"); code != 200 {
			t.Errorf("%s: /metrics answers %d", c.phase.name, code)
		}
		w := httptest.NewRecorder()
		s.serve(w, httptest.NewRequest("GET", "/", nil))
		var body fault.Body
		if c.otherType != "" {
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
		}
		if w.Code != c.other || body.Type != c.otherType || w.Header().Get("Retry-After") != c.retrys {
			t.Errorf("%s: / answers %d %+v, Retry-After %q", c.phase.name, w.Code, body, w.Header().Get("Retry-After"))
		}
	}
	s.phase.Store(ready)
}

// The order of a stop: bots finish while the API still answers them, then
// requests end, and the mark that the event was handled is on the disk.
func TestABotFinishesWhileTheServerDrains(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			called := make(chan struct{})
			var botID string
			bot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var in struct {
					Event struct {
						ConversationID string `json:"conversationId"`
					} `json:"event"`
				}
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				close(called)
				<-s.draining
				if code, text := s.raw("GET", "/readyz", nil, nil); code != 503 {
					t.Errorf("/readyz answers %d %q while the server drains, want 503", code, text)
				}
				if code := s.call("POST", "/v1/chat/messages", s.as(botID), map[string]any{
					"conversationId": in.Event.ConversationID, "userId": botID, "type": "text", "tags": struct{}{}, "payload": map[string]string{"text": "late"},
				}, nil); code != 201 {
					t.Errorf("the bot's createMessage answers %d while the server drains, want 201", code)
				}
				_, _ = io.WriteString(w, "{}")
			}))
			defer bot.Close()
			botID = s.newBot(bot.URL)
			v := s.visit(s.door(botID))
			v.say("hello")
			<-called
			must(t, s.stop())
			if _, err := net.Dial("tcp", s.Addr()); err == nil {
				t.Error("the stopped server still takes connections")
			}
			again := start(t, func(c *Config) { *c = s.cfg })
			v.server = again
			if got, want := v.texts(), []string{"hello", "late"}; !slices.Equal(got, want) {
				t.Errorf("the conversation is %q, want %q", got, want)
			}
			if got := again.events(botID); !slices.Equal(got, []string{string(delivery.Processed)}) {
				t.Errorf("events are %q, want one processed", got)
			}
		})
	}
}

// newBot makes a bot at a URL, with a chat.
func (s *server) newBot(url string) string {
	s.t.Helper()
	var made struct {
		Bot struct{ ID string } `json:"bot"`
	}
	if code := s.call("POST", "/v1/admin/bots", s.as(""), map[string]string{"name": "a bot", "url": url}, &made); code != 200 {
		s.t.Fatalf("createBot answers %d", code)
	}
	var hub struct {
		Integration struct{ ID string } `json:"integration"`
	}
	if code := s.call("GET", "/v1/admin/hub/integrations/chat/latest", s.as(""), nil, &hub); code != 200 {
		s.t.Fatalf("getPublicIntegration answers %d", code)
	}
	code := s.call("PUT", "/v1/admin/bots/"+made.Bot.ID, s.as(""), map[string]any{
		"integrations": map[string]any{"chat": map[string]any{"integrationId": hub.Integration.ID, "enabled": true, "configuration": struct{}{}}},
	}, nil)
	if code != 200 {
		s.t.Fatalf("updateBot answers %d", code)
	}
	return made.Bot.ID
}

// events lists the statuses of a bot's events.
func (s *server) events(botID string) []string {
	s.t.Helper()
	var list struct {
		Events []struct{ Status string } `json:"events"`
	}
	if code := s.call("GET", "/v1/chat/events", s.as(botID), nil, &list); code != 200 {
		s.t.Fatalf("listEvents answers %d", code)
	}
	var out []string
	for _, e := range list.Events {
		out = append(out, e.Status)
	}
	return out
}

func TestServeRefusesDataThatIsNotSafe(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg Config
			s := start(t, func(c *Config) { engine(t, c); cfg = *c })
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			cfg.Dev = false
			key := filepath.Join(cfg.Data, "master.key")
			refused := func(why, want string) {
				t.Helper()
				if _, err := tryStart(t, func(c *Config) { *c = cfg }); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: got %v, want an error with %q", why, err, want)
				}
			}
			refused("credentials of parley dev", "holds a token of parley dev in clear")
			must(t, os.Remove(credentialsPath(cfg.Data)))
			must(t, os.Chmod(key, 0o644))
			refused("a key that others may read", "run chmod 600")
			must(t, os.Rename(key, key+".away"))
			refused("a missing key", "does not exist; put it back")
			cfg.MasterKeyFile = filepath.Join(cfg.Data, "named.key")
			refused("a named key that is missing", "does not exist; put it back")
			cfg.MasterKeyFile = ""
			must(t, os.WriteFile(key, []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), 0o600))
			refused("the key of another database", "belongs to another one")
			must(t, os.Chmod(key+".away", 0o600))
			must(t, os.Rename(key+".away", key))
			start(t, func(c *Config) { *c = cfg })
		})
	}
}

func TestAMigrationIsPrecededByABackup(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c) })
			must(t, s.stop())
			newer, err := New(t.Context(), s.cfg)
			must(t, err)
			newer.schema = later(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- newer.Run(ctx) }()
			select {
			case <-newer.Ready():
				cancel()
				must(t, <-done)
			case err := <-done:
				cancel()
				t.Fatal(err)
			}

			copies, err := filepath.Glob(filepath.Join(s.cfg.Data, "backups", "*.db"))
			must(t, err)
			if want := map[string]int{"sqlite": 1}[name]; len(copies) != want {
				t.Fatalf("%d copies %v were made, want %d", len(copies), copies, want)
			}
			_, err = tryStart(t, func(c *Config) { *c = s.cfg })
			if _, ok := errors.AsType[*sqldb.NewerSchemaError](err); !ok {
				t.Errorf("the older program on the newer schema: got %v, want a refusal", err)
			}
			for _, file := range copies {
				info, err := os.Stat(file)
				must(t, err)
				if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %o, want 600", file, info.Mode().Perm())
				}
				must(t, os.Rename(file, filepath.Join(s.cfg.Data, "parley.db")))
				start(t, func(c *Config) { *c = s.cfg })
			}
		})
	}
}

// later is the schema of a version that is still to come.
func later(t *testing.T) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	known, err := fs.Glob(schema.FS, "*.sql")
	must(t, err)
	for _, name := range known {
		text, err := fs.ReadFile(schema.FS, name)
		must(t, err)
		files[name] = &fstest.MapFile{Data: text}
	}
	files[fmt.Sprintf("%04d_later.sql", len(known)+1)] = &fstest.MapFile{Data: []byte("CREATE TABLE later (id TEXT PRIMARY KEY);")}
	return files
}

func TestANamedMasterKeyIsNotInvented(t *testing.T) {
	t.Parallel()
	_, err := tryStart(t, func(c *Config) { c.MasterKeyFile = filepath.Join(t.TempDir(), "key") })
	if err == nil || !strings.Contains(err.Error(), "make one with") {
		t.Errorf("got %v, want the command that makes one", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryOperationThatIsNotBuiltSaysSo(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	params := strings.NewReplacer("{", "", "}", "")
	for _, o := range spec.Operations() {
		if o.State == spec.Done || o.Family == "chat" {
			continue
		}
		want := fault.MethodNotFound
		if o.State == spec.Refused {
			want = fault.Forbidden
		}
		var got fault.Body
		code := s.call(o.Method, params.Replace(o.Path), nil, nil, &got)
		if code != want.Status || got.Type != want.Type || !strings.HasPrefix(got.Message, o.Name+" is ") || !strings.Contains(got.Message, o.Reason) {
			t.Errorf("%s %s: %d %+v, want %s about %s", o.Method, o.Path, code, got, want.Type, o.Name)
		}
	}
}

func TestPathsOutsideTheAPIs(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	path := s.door(c.BotID)
	for _, one := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/", 200, "a self-hosted home for conversational bots"},
		{"GET", "/docs", 200, "<html"},
		{"GET", "/openapi.json", 200, `"openapi": "3.1.0"`},
		{"GET", "/metrics", 200, "parley_build_info{"},
		{"GET", "/metrics", 200, "parley_db_commits_total"},
		{"GET", "/metrics", 200, "parley_timer_lateness_seconds_count"},
		{"GET", "/nowhere", 404, `"type":"ResourceNotFound"`},
		{"POST", "/", 404, `"type":"ResourceNotFound"`},
		{"GET", path + "/hello", 200, "hello"},
		{"GET", path + "/hello/", 200, "hello"},
		{"GET", path + "/openapi.json", 200, "createUser"},
		{"GET", path + "/nowhere", 404, `"type":"ResourceNotFound"`},
		{"GET", "/00000000-0000-4000-8000-000000000000", 404, "[Webhook Handler]"},
		{"POST", "/00000000-0000-4000-8000-000000000000/users", 404, "[Webhook Handler]"},
	} {
		code, text := s.raw(one.method, one.path, nil, nil)
		if code != one.status || !strings.Contains(string(text), one.says) {
			t.Errorf("%s %s answers %d %.300s, want %d with %s", one.method, one.path, code, text, one.status, one.says)
		}
	}
}

func TestCommandsWorkWithoutAServer(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Load(func(string) string { return "" }, map[string]string{"data": filepath.Join(t.TempDir(), "data")})
			must(t, err)
			engine(t, &cfg)
			if cfg.DatabaseURL == "" {
				if err := Offline(t.Context(), cfg, false, nil); !errors.Is(err, ErrNoServer) {
					t.Errorf("without data: got %v, want ErrNoServer", err)
				}
				if _, err := os.Stat(cfg.Data); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a look made the data directory (%v)", err)
				}
			}
			for range 2 {
				err = Offline(t.Context(), cfg, true, func(ctx context.Context, h http.Handler, token string) error {
					w := httptest.NewRecorder()
					r := httptest.NewRequestWithContext(ctx, "GET", "/v1/admin/workspaces", nil)
					r.Header.Set("Authorization", "Bearer "+token)
					h.ServeHTTP(w, r)
					if w.Code != 200 || strings.Count(w.Body.String(), `"name":"Parley"`) != 1 {
						t.Errorf("listWorkspaces answers %d %s, want one workspace", w.Code, w.Body)
					}
					if _, err := New(ctx, cfg); !strings.Contains(err.Error(), "another server uses") {
						t.Errorf("a server beside a command: got %v", err)
					}
					return nil
				})
				must(t, err)
			}
			a, err := tryStart(t, func(c *Config) {
				cfg.Addr, cfg.DrainTimeout = c.Addr, c.DrainTimeout
				*c = cfg
			})
			must(t, err)
			if left, err := a.parts.workspace.ListTokens(t.Context()); err != nil || len(left) != 0 {
				t.Errorf("tokens that the commands left: %v (%v)", left, err)
			}
		})
	}
}

// A backup is one moment, however much is written meanwhile, and starts as a
// server of its own.
func TestABackupUnderLoadIsWhole(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	path := s.door(c.BotID)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	said := make(chan struct{}, 1)
	for range 4 {
		v := s.visit(path)
		writers.Go(func() {
			for ctx.Err() == nil {
				v.say("x")
				select {
				case said <- struct{}{}:
				default:
				}
			}
		})
	}
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"a.tar", "b.tar", "c.tar"} {
		for range 20 {
			<-said
		}
		file := filepath.Join(dir, name)
		if _, err := Backup(t.Context(), s.cfg, file); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cancel()
	writers.Wait()
	if _, err := Backup(t.Context(), s.cfg, files[0]); err == nil || !strings.Contains(err.Error(), "never overwrites") {
		t.Errorf("over a file that exists: got %v", err)
	}
	for _, file := range files {
		restored := start(t, func(c *Config) { c.Data = restore(t, file) })
		for what, query := range map[string]string{
			"messages that no head counts": `SELECT COUNT(*) FROM messages m JOIN conversation_heads h ON h.conversation_id = m.conversation_id WHERE m.seq > h.message_seq`,
			"heads without their messages": `SELECT COUNT(*) FROM conversation_heads h WHERE h.message_seq <> (SELECT COUNT(*) FROM messages m WHERE m.conversation_id = h.conversation_id)`,
		} {
			rows, err := restored.parts.db.Reader(t.Context()).Query(query)
			must(t, err)
			var n int64
			if rows.Next() {
				must(t, rows.Scan(&n))
			}
			must(t, errors.Join(rows.Err(), rows.Close()))
			if n != 0 {
				t.Errorf("%s: %d %s", filepath.Base(file), n, what)
			}
		}
		restored.idle() // what was pending is answered, with the key that came along
		must(t, restored.stop())
	}
}

// restore unpacks a backup as the guide says.
func restore(t *testing.T, file string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	must(t, os.Mkdir(dir, 0o700))
	info, err := os.Stat(file)
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %o, want 600", file, info.Mode().Perm())
	}
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, h.Name)
		text, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, h.Name), text, h.FileInfo().Mode()))
	}
	if want := []string{"parley.db", "master.key"}; !slices.Equal(names, want) {
		t.Errorf("the backup holds %q, want %q", names, want)
	}
	return dir
}
