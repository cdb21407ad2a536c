// A real, certified OpenID provider on loopback with the token exchange of RFC 8693,
// which it leaves to those who run it. "tester" gets access tokens by
// client_credentials; "gateway" exchanges them for narrower ones for another
// audience, and gets tokens of its own.
//
// It prints {"issuer": "..."} when it listens. GET /test/exchanges says how many
// there were. It ends when its standard input does, so that no test leaves it behind.
import { generateKeyPairSync } from 'node:crypto';
import http from 'node:http';

import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const accessToken = 'urn:ietf:params:oauth:token-type:access_token';
const scopes = 'orders.read orders.write';
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const own = { kid: 'one', alg: 'ES256', use: 'sig' };
const trusted = createLocalJWKSet({ keys: [{ ...publicKey.export({ format: 'jwk' }), ...own }] });

let exchanges = 0;

// handler issues a token for the subject of another. It lets nobody have more than
// the other had.
async function handler(ctx) {
  const { params, provider, client } = ctx.oidc;
  exchanges += 1;
  if (params.subject_token_type !== accessToken) throw new errors.InvalidRequest('subject_token_type is not supported');
  let subject;
  try {
    ({ payload: subject } = await jwtVerify(params.subject_token, trusted, { issuer: provider.issuer, audience: 'https://api.example' }));
  } catch {
    throw new errors.InvalidRequest('subject_token is not valid');
  }
  if (!['orders', 'billing'].includes(params.audience)) throw new errors.InvalidTarget('no such audience');
  const asked = params.scope ? params.scope.split(' ') : subject.scope.split(' ');
  if (!asked.every((s) => subject.scope.split(' ').includes(s))) throw new errors.InvalidScope('wider than the subject_token', params.scope);
  const token = new provider.AccessToken({ accountId: subject.sub, client, gty: exchange, scope: asked.join(' ') });
  token.resourceServer = new provider.ResourceServer(params.audience, {
    audience: params.audience, scope: scopes, accessTokenTTL: 120, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
  });
  ctx.body = {
    access_token: await token.save(), issued_token_type: accessToken, token_type: 'Bearer', expires_in: token.expiration, scope: token.scope,
  };
}

const server = http.createServer((req, res) => {
  if (req.url === '/test/exchanges') {
    res.end(String(exchanges));
    return;
  }
  handle(req, res);
});
let handle;

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const client = { id_token_signed_response_alg: 'ES256', redirect_uris: [], response_types: [], scope: scopes };
  const provider = new Provider(issuer, {
    clients: [
      { ...client, client_id: 'tester', client_secret: 'a-secret-for-the-test-only', grant_types: ['client_credentials'] },
      { ...client, client_id: 'gateway', client_secret: 'a secret: with % and +', grant_types: ['client_credentials', exchange] },
    ],
    scopes: scopes.split(' '),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), ...own }] },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          audience: resource, scope: scopes, accessTokenTTL: 300, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
  provider.registerGrantType(exchange, handler, ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'scope']);
  provider.on('server_error', (_ctx, err) => console.error(err));
  handle = provider.callback();
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0));
