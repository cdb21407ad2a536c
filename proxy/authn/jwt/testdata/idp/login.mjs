// A real, certified OpenID provider on loopback at which people log in by forms. Its
// one client is a gateway at the origin given as the first argument, or at several,
// separated by commas; the first is told of logouts. The second argument, a JSON
// object, may say otherwise than what stands in options below.
//
// It prints {"issuer": "...", "address": "..."} when it listens, and ends when its
// standard input does. Any name and password are right. Who is asked for an
// authentication context class logs in once more and has it then. GET /test/renewals
// says how often which refresh token was used, each by a number, and how many renewals
// were refused.
import { X509Certificate, generateKeyPair } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { promisify } from 'node:util';

import Provider, { interactionPolicy } from 'oidc-provider';

const origins = process.argv[2].split(',');
const options = {
  clients: [{}], // one for each, with these differences
  features: {}, // of oidc-provider's configuration
  tls: undefined, // {"key", "cert", "ca"}, PEM: it speaks TLS and takes certificates of that authority for what clients are known by (RFC 8705)
  issuer: undefined, // where it stands behind something else
  under: '/oauth2', // where the gateway's addresses for this provider lie
  tells: origins[0], // where the gateway is to be had by back channel
  bye: undefined, // where browsers go after a logout
  asks: true, // whether a logout is confirmed
  ttl: 12, // of access tokens, in seconds
  rotates: false, // whether a refresh token is good once; whoever sends one again ends the grant
  ...JSON.parse(process.argv[3] ?? '{}'),
};
const { tls } = options;
const byes = options.bye ? [options.bye] : origins.map((o) => `${o}/public/bye`);
const renewals = { used: {}, refused: 0 };

// better has those log in again whose authentication is not of the class asked for.
function better() {
  const { Check, base } = interactionPolicy;
  const policy = base();
  policy.get('login').checks.add(new Check('acr_values', 'a better authentication is asked for', ({ oidc }) => {
    const asked = oidc.params.acr_values?.split(' ') ?? [];
    return asked.length > 0 && !asked.includes(oidc.acr) && !oidc.result?.login;
  }));
  return policy;
}

// raise gives a login the class that was asked for.
function raise(provider) {
  const finish = provider.interactionFinished.bind(provider);
  provider.interactionFinished = async (req, res, result, settings) => {
    const { params } = await provider.interactionDetails(req, res);
    if (result.login && params.acr_values) result.login.acr = params.acr_values.split(' ')[0];
    return finish(req, res, result, settings);
  };
}

function count(provider) {
  const numbers = new Map();
  provider.use(async (ctx, next) => {
    await next();
    const token = ctx.oidc?.route === 'token' && ctx.oidc.params?.refresh_token;
    if (!token) return;
    if (!numbers.has(token)) numbers.set(token, numbers.size + 1);
    const n = numbers.get(token);
    renewals.used[n] = (renewals.used[n] ?? 0) + 1;
    if (ctx.status !== 200) renewals.refused += 1;
  });
}

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

const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
let handle;
function serve(req, res) {
  const { pathname, searchParams } = new URL(req.url, 'http://127.0.0.1');
  if (pathname === '/test/renewals') {
    res.end(JSON.stringify(renewals));
    return;
  }
  if (pathname === '/session/end' && req.method === 'GET' && !options.asks) { // as many do, given an id_token_hint
    res.writeHead(303, { location: searchParams.get('post_logout_redirect_uri') }).end();
    return;
  }
  handle(req, res);
}
const server = tls ? https.createServer({ ...tls, requestCert: true, rejectUnauthorized: false }, serve) : http.createServer(serve);

server.listen(0, '127.0.0.1', () => {
  const address = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  const issuer = options.issuer ?? address;
  const provider = new Provider(issuer, {
    clients: options.clients.map((differences) => ({
      client_id: 'web', client_secret: 'a-secret-for-the-test-only', grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'], redirect_uris: origins.flatMap((o) => [`${o}${options.under}/callback`, `${o}/.ambassador/oauth2/redirection-endpoint`]), post_logout_redirect_uris: byes,
      backchannel_logout_uri: `${options.tells}${options.under}/backchannel-logout`, backchannel_logout_session_required: true, require_auth_time: true,
      ...differences,
    })),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }] },
    cookies: { keys: ['for the test only'] },
    claims: { openid: ['sub', 'sid', 'auth_time', 'acr'], email: ['email'] },
    conformIdTokenClaims: false,
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
    // Its own way out refuses loopback, where the gateway is.
    fetch: (url, { dispatcher, ...rest }) => globalThis.fetch(url, rest),
    acrValues: ['mfa'],
    interactions: { policy: better() },
    issueRefreshToken: () => true,
    rotateRefreshToken: options.rotates,
    ...(tls && { clientAuthMethods: ['tls_client_auth', 'self_signed_tls_client_auth'] }),
    ttl: { AccessToken: options.ttl, IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 3600, RefreshToken: 3600, AuthorizationCode: 60 },
    features: {
      devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true }, backchannelLogout: { enabled: true }, userinfo: { enabled: true },
      revocation: { enabled: true }, ...(tls && { mTLS }), ...options.features,
    },
  });
  provider.on('server_error', (_ctx, err) => console.error(err));
  provider.on('backchannel.error', (_ctx, err) => console.error(err));
  raise(provider);
  count(provider);
  handle = provider.callback();
  console.log(JSON.stringify({ issuer, address }));
});
process.stdin.resume().on('end', () => process.exit(0));
