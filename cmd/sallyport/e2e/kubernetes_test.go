//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is a real Kubernetes API server with its etcd, and nothing else: no node, no
// controllers. Both listen on loopback.
type cluster struct {
	url, ca string
	client  *http.Client
	api     *exec.Cmd
	stop    func()
}

// adminToken is that of a static user of the test's own API server.
const adminToken = "e2e-admin"

// startCluster starts an API server, or skips the test where there is none: the folder
// KUBE_WORK has it in bin, as make e2e-kube builds it, and etcd is installed.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	binary := filepath.Join(os.Getenv("KUBE_WORK"), "bin", "kube-apiserver")
	if _, err := os.Stat(binary); err != nil || os.Getenv("KUBE_WORK") == "" {
		t.Skip("KUBE_WORK names no folder with bin/kube-apiserver; make e2e-kube builds one")
	}
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not installed")
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	client, peer := "http://"+freeAddress(t), "http://"+freeAddress(t)
	background(t, exec.Command(etcd, "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer))

	ca := newAuthority(t)
	cert, key := ca.issue(t, 1)
	_, signing := ca.issue(t, 2)
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{url: "https://127.0.0.1:" + port, client: oneConnection(ca.pool)()}
	c.ca = file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	signingFile := file("sa.key", signing)
	c.api = exec.Command(binary, "--etcd-servers="+client, "--bind-address=127.0.0.1", "--secure-port="+port, "--endpoint-reconciler-type=none",
		"--tls-cert-file="+file("api.pem", cert), "--tls-private-key-file="+file("api.key", key), "--cert-dir="+dir,
		"--service-account-key-file="+signingFile, "--service-account-signing-key-file="+signingFile, "--service-account-issuer="+c.url,
		"--token-auth-file="+file("tokens.csv", adminToken+",admin,admin,system:masters\n"),
		"--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24")
	c.stop = background(t, c.api)
	t.Cleanup(c.client.CloseIdleConnections)
	eventually(t, 2*time.Minute, "the API server is ready", func() bool {
		code, _ := c.call(t, adminToken, "GET", "/readyz", nil)
		return code == http.StatusOK
	})
	return c
}

// background runs a command until the test ends, or until stop is called.
func background(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ended by a signal
		close(done)
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			lines := strings.Split(out.String(), "\n")
			t.Logf("end of the output of %s:\n%s", cmd.Path, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
	return stop
}

// call sends an object to the API server; status 0 is no answer.
func (c *cluster) call(t *testing.T, token, method, path string, object any) (int, map[string]any) {
	t.Helper()
	var body io.Reader = http.NoBody
	if object != nil {
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, c.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	var answer map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&answer) // not all of them are JSON
	return resp.StatusCode, answer
}

type object = map[string]any

// create makes an object as the administrator.
func (c *cluster) create(t *testing.T, path string, o object) object {
	t.Helper()
	code, answer := c.call(t, adminToken, "POST", path, o)
	if code != http.StatusCreated {
		t.Fatalf("create %s %v: status %d: %v", path, o["metadata"], code, answer["message"])
	}
	return answer
}

func named(name string) object { return object{"metadata": object{"name": name}} }

// account makes a service account, with its namespace if need be.
func (c *cluster) account(t *testing.T, namespace, name string) {
	t.Helper()
	if code, _ := c.call(t, adminToken, "GET", "/api/v1/namespaces/"+namespace, nil); code == http.StatusNotFound {
		c.create(t, "/api/v1/namespaces", named(namespace))
	}
	c.create(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts", named(name))
}

// pod makes a pod of a service account, which nobody ever runs.
func (c *cluster) pod(t *testing.T, namespace, account, name string) (uid string) {
	t.Helper()
	p := named(name)
	p["spec"] = object{
		"serviceAccountName": account, "automountServiceAccountToken": false,
		"containers": []any{object{"name": "c", "image": "example/none"}},
	}
	return c.create(t, "/api/v1/namespaces/"+namespace+"/pods", p)["metadata"].(object)["uid"].(string)
}

// token requests a token as the kubelet does for a projected volume. With pod, it ends
// with it.
func (c *cluster) token(t *testing.T, namespace, account, audience, pod, uid string) string {
	t.Helper()
	spec := object{"audiences": []any{audience}, "expirationSeconds": 600}
	if pod != "" {
		spec["boundObjectRef"] = object{"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
	}
	answer := c.create(t, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", object{"spec": spec})
	return answer["status"].(object)["token"].(string)
}

// bind gives a service account a cluster role.
func (c *cluster) bind(t *testing.T, role, namespace, account string) {
	t.Helper()
	c.create(t, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", object{
		"metadata": object{"name": role + "-" + account},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
		"subjects": []any{object{"kind": "ServiceAccount", "namespace": namespace, "name": account}},
	})
}

// TestServiceAccounts accepts the service account tokens of a real cluster: by asking
// its API server, and by its key set.
func TestServiceAccounts(t *testing.T) {
	c := startCluster(t)
	c.account(t, "edge", "gateway")
	c.account(t, "ci", "builder")
	c.account(t, "ci", "visitor")
	c.create(t, "/apis/rbac.authorization.k8s.io/v1/clusterroles", object{
		"metadata": object{"name": "orders-reader"},
		"rules":    []any{object{"nonResourceURLs": []any{"/v1/orders/*"}, "verbs": []any{"get"}}},
	})
	c.bind(t, "orders-reader", "ci", "builder")

	s := newSite(t, paths)
	write(t, s.file("own-token"), c.token(t, "edge", "gateway", c.url, "", ""))
	text := strings.Replace(s.config(0, fromPaths), "  dev:", fmt.Sprintf(`  pods:
    kubernetes: {api_server: %[1]q, token_file: own-token, ca_file: %[2]q, audiences: [orders], cache_max_age: 1s, refused_max_age: 0s, access_review: {}}
  keys:
    jwt: {issuer: %[1]q, jwks_url: %[3]q, jwks_token_file: own-token, ca_file: %[2]q, audiences: [orders]}
  dev:`, c.url, c.ca, c.url+"/openid/v1/jwks"), 1)
	text = strings.Replace(text, "authenticate: [dev]", "authenticate: [dev, pods]", 1)
	text = strings.Replace(text, "routes:\n", `routes:
  - {name: by-keys, match: {path: "/keys/**"}, authenticate: [dev, keys], upstream: api}
`, 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), `package gateway

default decision := {"allow": false}

shown := {"x-who": sprintf("%s %s %s", [input.identity.kind, input.identity.subject, object.get(input.identity.claims, "pod", "")])}

decision := {"allow": true, "response": {"set_headers": shown}} if {
	input.identity.claims.access.allowed
	input.identity.claims.namespace == "ci"
}

decision := {"allow": true, "response": {"set_headers": shown}} if input.identity.kind == "jwt"
`)
	s.start(t)
	client := oneConnection(s.ca.pool)()
	defer client.CloseIdleConnections()
	answer := func(method, path, token string) (int, string) {
		req, err := http.NewRequest(method, "https://"+s.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("X-Who")
	}
	status := func(method, path, token string) int { code, _ := answer(method, path, token); return code }

	uid := c.pod(t, "ci", "builder", "build-7")
	builder := c.token(t, "ci", "builder", "orders", "build-7", uid)
	if got := status("GET", "/v1/orders/42", builder); got != 503 {
		t.Errorf("before the gateway may ask: status %d, want 503", got)
	}
	c.bind(t, "system:auth-delegator", "edge", "gateway")
	eventually(t, 30*time.Second, "the gateway may ask", func() bool { return status("GET", "/v1/orders/42", builder) != 503 })

	const who = "system:serviceaccount:ci:builder"
	head, rest, _ := strings.Cut(builder, ".")
	payload, _, _ := strings.Cut(rest, ".")
	for name, tt := range map[string]struct {
		method, path, token string
		status              int
		who                 string
	}{
		"good":                          {"GET", "/v1/orders/42", builder, 200, "kubernetes " + who + " build-7"},
		"RBAC has another verb":         {"POST", "/v1/orders/42", builder, 403, ""},
		"RBAC has another path":         {"GET", "/v1/bills/42", builder, 403, ""},
		"an account without role":       {"GET", "/v1/orders/42", c.token(t, "ci", "visitor", "orders", "", ""), 403, ""},
		"for another audience":          {"GET", "/v1/orders/42", c.token(t, "ci", "builder", "bills", "", ""), 401, ""},
		"for the API server itself":     {"GET", "/v1/orders/42", c.token(t, "ci", "builder", c.url, "", ""), 401, ""},
		"signature of nobody":           {"GET", "/v1/orders/42", head + "." + payload + ".AAAA", 401, ""},
		"opaque token of the cluster":   {"GET", "/v1/orders/42", adminToken, 401, ""},
		"token of the other issuer":     {"GET", "/v1/orders/42", s.token, 200, "jwt alice"},
		"by key set":                    {"GET", "/keys/1", builder, 200, "jwt " + who},
		"by key set, another audience":  {"GET", "/keys/1", c.token(t, "ci", "builder", "bills", "", ""), 401, ""},
		"by key set, somebody's signed": {"GET", "/keys/1", head + "." + payload + ".AAAA", 401, ""},
	} {
		if code, shown := answer(tt.method, tt.path, tt.token); code != tt.status || shown != tt.who {
			t.Errorf("%s: status %d as %q, want %d as %q", name, code, shown, tt.status, tt.who)
		}
	}

	// The difference between the two: a token ends with its pod.
	if code, _ := c.call(t, adminToken, "DELETE", "/api/v1/namespaces/ci/pods/build-7", object{"gracePeriodSeconds": 0}); code != http.StatusOK {
		t.Fatalf("delete the pod: status %d", code)
	}
	eventually(t, 30*time.Second, "the token ends with its pod", func() bool { return status("GET", "/v1/orders/42", builder) == 401 })
	if got := status("GET", "/keys/1", builder); got != 200 {
		t.Errorf("by key set after the pod is gone: status %d, want 200", got)
	}

	last := c.token(t, "ci", "builder", "orders", "", "")
	if got := status("GET", "/v1/orders/42", last); got != 200 {
		t.Errorf("another token: status %d, want 200", got)
	}
	fresh := c.token(t, "ci", "builder", "orders", "", "")
	c.stop()
	if got := status("GET", "/v1/orders/42", fresh); got != 503 {
		t.Errorf("an unknown token without API server: status %d, want 503", got)
	}
	eventually(t, 30*time.Second, "a known token ends with its answer", func() bool { return status("GET", "/v1/orders/42", last) == 503 })
}
