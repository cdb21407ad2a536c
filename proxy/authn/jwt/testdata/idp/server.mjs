// A real, certified OpenID provider on loopback that issues JWT access tokens
// (RFC 9068) to one client by client_credentials with a resource indicator (RFC
// 8707). The resource names the algorithm: https://api.example/ES256. Tokens for
// https://api.example/opaque are opaque; the client "gateway" may ask about them with
// its secret, "gateway-jwt" with the keys of the set in GATEWAY_JWKS, and gets a
// signed answer (RFC 9701) if it wants one, or the token as a JWT (a phantom token). Two
// more clients say who they are by a JWT (RFC 7523): "machine-key" signs it with a key of
// the set in MACHINE_JWKS, "machine-secret" with its secret.
//
// It prints {"issuer": "..."} when it listens. POST /test/keys?names=a,b puts
// those signing keys in force, the first signs; keys are made on first mention.
// It ends when its standard input does, so that no test leaves it behind.
import { generateKeyPair } from 'node:crypto';
import http from 'node:http';
import { promisify } from 'node:util';

import { importJWK, SignJWT } from 'jose';
import Provider from 'oidc-provider';

const algorithms = {
  ES256: ['ec', { namedCurve: 'P-256' }],
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  EdDSA: ['ed25519', {}],
};
const made = new Map();

async function makeKeys(name) {
  if (!made.has(name)) {
    made.set(name, await Promise.all(Object.entries(algorithms).map(async ([alg, [type, options]]) => {
      const { privateKey } = await promisify(generateKeyPair)(type, options);
      return { ...privateKey.export({ format: 'jwk' }), kid: `${name}-${alg}`, alg, use: 'sig' };
    })));
  }
  return made.get(name);
}

function formatOf(name) {
  return name === 'opaque' ? { accessTokenFormat: 'opaque' } : { accessTokenFormat: 'jwt', jwt: { sign: { alg: name } } };
}

function gatewayWithKeys() {
  if (!process.env.GATEWAY_JWKS) return [];
  return [{
    client_id: 'gateway-jwt', token_endpoint_auth_method: 'private_key_jwt', jwks: JSON.parse(process.env.GATEWAY_JWKS),
    introspection_signed_response_alg: 'ES256', redirect_uris: [], response_types: [], grant_types: [],
  }];
}

function machines() {
  const rest = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'orders.read orders.write' };
  const secret = 'a secret of 32 bytes, or somewhat more';
  const all = [{ client_id: 'machine-secret', token_endpoint_auth_method: 'client_secret_jwt', client_secret: secret, ...rest }];
  if (process.env.MACHINE_JWKS) {
    all.push({ client_id: 'machine-key', token_endpoint_auth_method: 'private_key_jwt', jwks: JSON.parse(process.env.MACHINE_JWKS), ...rest });
  }
  return all;
}

// phantom answers who asks for application/jwt as the Curity Identity Server does: with
// the access token as a JWT, or 204 for one that is not active. The library leaves that
// to those who run it.
function phantom(jwk) {
  return async (ctx, next) => {
    await next();
    if (ctx.path !== '/token/introspection' || ctx.get('accept') !== 'application/jwt' || ctx.status !== 200) return;
    const { active, token_type: _, ...claims } = ctx.body;
    if (!active) {
      ctx.status = 204;
      return;
    }
    ctx.body = await new SignJWT(claims).setProtectedHeader({ alg: jwk.alg, kid: jwk.kid, typ: 'at+jwt' }).sign(await importJWK(jwk));
    ctx.type = 'application/jwt';
  };
}

let issuer;
let handle;

async function use(names) {
  const keys = (await Promise.all(names.map(makeKeys))).flat();
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'tester', client_secret: 'a-secret-for-the-test-only', grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [], scope: 'orders.read orders.write',
    }, {
      client_id: 'gateway', client_secret: 'a secret: with % and +', redirect_uris: [], response_types: [], grant_types: [],
    }, ...gatewayWithKeys(), ...machines()],
    scopes: ['orders.read', 'orders.write'],
    jwks: { keys },
    enabledJWA: { idTokenSigningAlgValues: Object.keys(algorithms), dPoPSigningAlgValues: Object.keys(algorithms) },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      jwtIntrospection: { enabled: true },
      revocation: { enabled: true },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'orders.read orders.write',
          audience: resource,
          accessTokenTTL: 300,
          ...formatOf(new URL(resource).pathname.slice(1)),
        }),
      },
    },
  });
  provider.use(phantom(keys.find((key) => key.alg === 'ES256')));
  provider.on('server_error', (_ctx, err) => console.error(err));
  handle = provider.callback();
}

const server = http.createServer((req, res) => {
  const url = new URL(req.url, issuer);
  if (req.method === 'POST' && url.pathname === '/test/keys') {
    use(url.searchParams.get('names').split(',')).then(() => res.end('ok'), (err) => {
      res.statusCode = 500;
      res.end(String(err));
    });
    return;
  }
  handle(req, res);
});

server.listen(0, '127.0.0.1', async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  await use(['first']);
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0));
