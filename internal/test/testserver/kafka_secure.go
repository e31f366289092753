package testserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// A SecureBroker accepts clients only by TLS and SCRAM, and checks their rights.
type SecureBroker struct {
	Bootstrap string
	Prefix    string      // unique prefix for names of topics, groups, users and transactional ids
	Admin     *kgo.Client // has every right
}

// Right is an operation that a user may do on a resource.
type Right struct {
	Operation kmsg.ACLOperation
	Type      kmsg.ACLResourceType
	Name      string
	Prefixed  bool // Name is the beginning of the names
}

const scramPassword = "secret"

// EachSecureBroker runs a test on an in-process broker and on real Kafka with StandardAuthorizer, in parallel.
// It returns before they start. With -short, or without Kafka, the real one is skipped.
func EachSecureBroker(t *testing.T, test func(t *testing.T, b SecureBroker)) {
	t.Run("kafkatest", func(t *testing.T) {
		t.Parallel()
		secure := &tls.Config{Certificates: []tls.Certificate{certificate().tls}}
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(secure), kfake.EnableSASL(), kfake.EnableACLs(),
			kfake.Superuser("SCRAM-SHA-256", "admin", scramPassword), kfake.DefaultNumPartitions(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		bootstrap := strings.Join(c.ListenAddrs(), ",")
		test(t, SecureBroker{bootstrap, brokerPrefix(t), admin(t, bootstrap,
			kgo.DialTLSConfig(&tls.Config{RootCAs: certificate().pool}), kgo.SASL(scram.Auth{User: "admin", Pass: scramPassword}.AsSha256Mechanism()))})
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		skipShort(t)
		k, err := sharedKafka.get(cluster{nodes: 1, secure: true})
		if err != nil {
			skipOrFail(t, err)
		}
		k.logOnFailure(t)
		test(t, SecureBroker{fmt.Sprintf("127.0.0.1:%d", k.nodes[0].ports.secure), brokerPrefix(t), admin(t, k.Bootstrap())})
	})
}

// Secured returns a cluster that was started with Secure, as clients reach it by a listener with TLS, SCRAM and an authorizer: by bootstrap, from Proxies.
func (k *Kafka) Secured(t testing.TB, bootstrap, prefix string) SecureBroker {
	t.Helper()
	return SecureBroker{bootstrap, prefix, admin(t, k.Bootstrap())}
}

func admin(t testing.TB, bootstrap string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(strings.Split(bootstrap, ",")...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// User creates a user with rights, and returns librdkafka's settings to connect as it. It waits until the broker knows the user.
func (b SecureBroker) User(t testing.TB, name string, rights ...Right) map[string]any {
	t.Helper()
	name = b.Prefix + "-" + name
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const iterations = 4096
	salt := []byte(rand.Text())
	salted, err := pbkdf2.Key(sha256.New, scramPassword, salt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	user := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	user.Name, user.Mechanism, user.Iterations, user.Salt, user.SaltedPassword = name, 1, iterations, salt, salted
	users := kmsg.NewAlterUserSCRAMCredentialsRequest()
	users.Upsertions = append(users.Upsertions, user)
	made, err := users.RequestWith(ctx, b.Admin)
	if err != nil {
		t.Fatalf("testserver: user %s: %v", name, err)
	}
	for _, r := range made.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("testserver: user %s: %v", name, err)
		}
	}
	b.Grant(ctx, t, name, rights...)
	b.awaitUser(ctx, t, name)
	return map[string]any{
		"bootstrap.servers": b.Bootstrap, "security.protocol": "SASL_SSL", "ssl.ca.pem": certificate().pem,
		"sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": name, "sasl.password": scramPassword,
	}
}

// Bearer returns librdkafka's settings to connect with tokens, which real Kafka accepts as [UnsecuredToken] makes them.
func (b SecureBroker) Bearer() map[string]any {
	return map[string]any{
		"bootstrap.servers": b.Bootstrap, "security.protocol": "SASL_SSL", "ssl.ca.pem": certificate().pem, "sasl.mechanisms": "OAUTHBEARER",
	}
}

// UnsecuredToken returns a token without a signature, for a user until a time.
func UnsecuredToken(user string, until time.Time) string {
	part := func(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }
	return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, user, time.Now().Add(-time.Second).Unix(), until.Unix())) + "."
}

// Grant gives a user rights.
func (b SecureBroker) Grant(ctx context.Context, t testing.TB, user string, rights ...Right) {
	t.Helper()
	acls := kmsg.NewCreateACLsRequest()
	for _, r := range rights {
		acl := kmsg.NewCreateACLsRequestCreation()
		acl.ResourceType, acl.ResourceName, acl.ResourcePatternType = r.Type, r.Name, kmsg.ACLResourcePatternTypeLiteral
		if r.Prefixed {
			acl.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed
		}
		acl.Principal, acl.Host, acl.Operation, acl.PermissionType = "User:"+user, "*", r.Operation, kmsg.ACLPermissionTypeAllow
		acls.Creations = append(acls.Creations, acl)
	}
	granted, err := acls.RequestWith(ctx, b.Admin)
	if err != nil {
		t.Fatalf("testserver: rights of %s: %v", user, err)
	}
	for _, r := range granted.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("testserver: rights of %s: %v", user, err)
		}
	}
}

// awaitUser waits until a user can connect: a broker learns of it some time after the controller.
func (b SecureBroker) awaitUser(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	for {
		c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.Bootstrap, ",")...), kgo.RequestRetries(0),
			kgo.DialTLSConfig(&tls.Config{RootCAs: certificate().pool}), kgo.SASL(scram.Auth{User: name, Pass: scramPassword}.AsSha256Mechanism()))
		if err != nil {
			t.Fatal(err)
		}
		err = c.Ping(ctx)
		c.Close()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("testserver: user %s cannot connect: %v", name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// keyPair is a certificate for 127.0.0.1 that signs itself.
type keyPair struct {
	tls     tls.Certificate
	pool    *x509.CertPool
	pem     string // the certificate
	private string // the key, as PKCS #8
}

var certificate = sync.OnceValue(makeCertificate)

// makeCertificate panics if it fails, which only a broken source of random numbers could cause.
func makeCertificate() keyPair {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	template.Subject.CommonName = "localhost"
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	parsed, err := x509.ParseCertificate(der)
	must(err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return keyPair{
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool,
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

// secure adds a listener with TLS, SCRAM and an authorizer to a node's settings, and gives them to that of the proxies. Clients of the other
// listeners may do everything.
func (n *kafkaNode) secure(settings map[string]string) error {
	keys := filepath.Join(n.folder, "keys.pem")
	pair := certificate()
	if err := os.WriteFile(keys, []byte(pair.private+pair.pem), 0o644); err != nil {
		return err
	}
	address := fmt.Sprintf(",SECURE://127.0.0.1:%d", n.ports.secure)
	settings["listeners"] += address
	settings["advertised.listeners"] += address
	settings["listener.security.protocol.map"] = "CLIENT:PLAINTEXT,PROXIED:SASL_SSL,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"
	settings["sasl.enabled.mechanisms"] = "SCRAM-SHA-256,OAUTHBEARER"
	for _, listener := range []string{"secure", "proxied"} {
		settings["listener.name."+listener+".oauthbearer.sasl.jaas.config"] = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
		settings["listener.name."+listener+".scram-sha-256.sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	}
	settings["ssl.keystore.type"], settings["ssl.keystore.location"] = "PEM", keys
	settings["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
	settings["super.users"] = "User:ANONYMOUS"
	return nil
}
