// A real, certified OpenID provider on loopback at which people log in by forms. Its
// one client is a gateway at the origin given as the first argument. The second, JSON,
// may change things: {"clients": [{...}]} has several clients in place of the one, each
// with these differences, "features" are those of oidc-provider's configuration, and
// with {"tls": {"key", "cert", "ca"}}, PEM, it speaks TLS and takes certificates of that
// authority for what clients are known by (RFC 8705).
//
// It prints {"issuer": "..."} when it listens, and ends when its standard input does.
// Any name and password are right. Access tokens last 12 seconds.
import { X509Certificate, generateKeyPair } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { promisify } from 'node:util';

import Provider from 'oidc-provider';

const origin = process.argv[2];
const { clients = [{}], features = {}, tls } = JSON.parse(process.argv[3] ?? '{}');
const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
let handle;
const server = tls
  ? https.createServer({ ...tls, requestCert: true, rejectUnauthorized: false }, (req, res) => handle(req, res))
  : http.createServer((req, res) => handle(req, res));

function certificateOf(ctx) {
  const { raw } = ctx.socket.getPeerCertificate();
  return raw && new X509Certificate(raw);
}

const mTLS = {
  enabled: true,
  tlsClientAuth: true,
  selfSignedTlsClientAuth: true,
  getCertificate: (ctx) => certificateOf(ctx)?.toString(),
  certificateAuthorized: (ctx) => ctx.socket.authorized,
  certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_san_dns' && certificateOf(ctx).checkHost(expected) === expected,
};

server.listen(0, '127.0.0.1', () => {
  const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: clients.map((differences) => ({
      client_id: 'web', client_secret: 'a-secret-for-the-test-only', grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'], redirect_uris: [`${origin}/oauth2/callback`], post_logout_redirect_uris: [`${origin}/public/bye`],
      backchannel_logout_uri: `${origin}/oauth2/backchannel-logout`, backchannel_logout_session_required: true, require_auth_time: true,
      ...differences,
    })),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }] },
    cookies: { keys: ['for the test only'] },
    claims: { openid: ['sub', 'sid', 'auth_time', 'acr'], email: ['email'] },
    conformIdTokenClaims: false,
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
    // Its own way out refuses loopback, where the gateway is.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    issueRefreshToken: () => true,
    ...(tls && { clientAuthMethods: ['tls_client_auth', 'self_signed_tls_client_auth'] }),
    ttl: { AccessToken: 12, IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 3600, RefreshToken: 3600, AuthorizationCode: 60 },
    features: {
      devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true }, backchannelLogout: { enabled: true }, userinfo: { enabled: true },
      revocation: { enabled: true }, ...(tls && { mTLS }), ...features,
    },
  });
  provider.on('server_error', (_ctx, err) => console.error(err));
  provider.on('backchannel.error', (_ctx, err) => console.error(err));
  handle = provider.callback();
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0));
