// A real, certified OpenID provider on loopback at which people log in by forms. Its
// one client is a gateway at the origin given as the argument.
//
// It prints {"issuer": "..."} when it listens, and ends when its standard input does.
// Any name and password are right. Access tokens last 12 seconds.
import { generateKeyPair } from 'node:crypto';
import http from 'node:http';
import { promisify } from 'node:util';

import Provider from 'oidc-provider';

const origin = process.argv[2];
const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
let handle;
const server = http.createServer((req, res) => handle(req, res));

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'web', client_secret: 'a-secret-for-the-test-only', grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'], redirect_uris: [`${origin}/oauth2/callback`, `${origin}/.ambassador/oauth2/redirection-endpoint`], post_logout_redirect_uris: [`${origin}/public/bye`],
      backchannel_logout_uri: `${origin}/oauth2/backchannel-logout`, backchannel_logout_session_required: true, require_auth_time: true,
    }],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }] },
    cookies: { keys: ['for the test only'] },
    claims: { openid: ['sub', 'sid', 'auth_time', 'acr'], email: ['email'] },
    conformIdTokenClaims: false,
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
    // Its own way out refuses loopback, where the gateway is.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    issueRefreshToken: () => true,
    ttl: { AccessToken: 12, IdToken: 3600, Session: 3600, Grant: 3600, Interaction: 3600, RefreshToken: 3600, AuthorizationCode: 60 },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true }, backchannelLogout: { enabled: true }, userinfo: { enabled: true } },
  });
  provider.on('server_error', (_ctx, err) => console.error(err));
  provider.on('backchannel.error', (_ctx, err) => console.error(err));
  handle = provider.callback();
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0));
