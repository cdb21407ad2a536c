// A client with a key (RFC 9449), made with the library that the provider uses too and
// not with the gateway's. It does what it is told by lines of JSON and answers each with
// one:
//
//   {"do": "token", "issuer", "resource"}: gets a token of "tester" that is bound to its key.
//   {"do": "call", "url", "token", "scheme", "key", "claims", "proof", "headers"}: sends a
//   GET with a proof, a new one unless it is given; "key": "other" signs by another key,
//   and claims replace those of the proof, null takes one away.
import { createHash, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

import { exportJWK, generateKeyPair, SignJWT } from 'jose';

const keys = { mine: await generateKeyPair('ES256', { extractable: true }), other: await generateKeyPair('ES256', { extractable: true }) };

async function prove(pair, claims) {
  const body = Object.fromEntries(Object.entries({ jti: randomUUID(), iat: Math.floor(Date.now() / 1000), ...claims }).filter(([, v]) => v != null));
  return new SignJWT(body)
    .setProtectedHeader({ typ: 'dpop+jwt', alg: 'ES256', jwk: await exportJWK(pair.publicKey) })
    .sign(pair.privateKey);
}

async function token({ issuer, resource }) {
  const url = `${issuer}/token`;
  const answer = await fetch(url, {
    method: 'POST',
    headers: {
      authorization: `Basic ${btoa('tester:a-secret-for-the-test-only')}`,
      dpop: await prove(keys.mine, { htm: 'POST', htu: url }),
    },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope: 'orders.read' }),
  });
  return answer.json();
}

async function call({ url, token, scheme = 'DPoP', key = 'mine', claims = {}, proof, headers = {} }) {
  const ath = createHash('sha256').update(token).digest('base64url');
  proof ??= await prove(keys[key], { htm: 'GET', htu: url, ath, ...claims });
  const answer = await fetch(url, { headers: { ...headers, authorization: `${scheme} ${token}`, dpop: proof } });
  await answer.text();
  return { status: answer.status, nonce: answer.headers.get('dpop-nonce') ?? '', challenge: answer.headers.get('www-authenticate') ?? '', proof };
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const done = await { token, call }[asked.do](asked).catch((err) => ({ error: `${err} ${err.cause ?? ''}` }));
  console.log(JSON.stringify(done));
}
