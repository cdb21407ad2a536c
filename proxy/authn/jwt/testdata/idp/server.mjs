// A real, certified OpenID provider on loopback that issues JWT access tokens
// (RFC 9068) to one client by client_credentials with a resource indicator (RFC
// 8707). The resource names the algorithm: https://api.example/ES256.
//
// It prints {"issuer": "..."} when it listens. POST /test/keys?names=a,b puts
// those signing keys in force, the first signs; keys are made on first mention.
// It ends when its standard input does, so that no test leaves it behind.
import { generateKeyPair } from 'node:crypto';
import http from 'node:http';
import { promisify } from 'node:util';

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

let issuer;
let handle;

async function use(names) {
  const keys = (await Promise.all(names.map(makeKeys))).flat();
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'tester', client_secret: 'a-secret-for-the-test-only', grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [], scope: 'orders.read orders.write',
    }],
    scopes: ['orders.read', 'orders.write'],
    jwks: { keys },
    enabledJWA: { idTokenSigningAlgValues: Object.keys(algorithms) },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'orders.read orders.write',
          audience: resource,
          accessTokenTTL: 300,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: new URL(resource).pathname.slice(1) } },
        }),
      },
    },
  });
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
