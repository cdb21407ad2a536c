// A page wants a better authentication than the session has (RFC 9470): who looks at
// it logs in again, and a script is told.
import { assert, atProvider, person, run, signIn, site } from './harness.mjs';

await run(async (browser) => {
  const { page } = await person(browser);
  await page.goto(`${site.origin}/app/orders`);
  await signIn(page);

  const script = () => page.evaluate(async () => {
    const r = await fetch('/app/secure?a=1', { headers: { accept: 'application/json' }, redirect: 'manual' });
    return { status: r.status, type: r.type, challenge: r.headers.get('www-authenticate'), media: r.headers.get('content-type') };
  });
  const told = await script();
  assert.equal(told.status, 401);
  assert.match(told.challenge, /^Bearer .*error="insufficient_user_authentication"/);
  assert.match(told.challenge, /acr_values="mfa"/);
  assert.match(told.media, /^application\/problem\+json/);
  assert.equal(await page.locator('#user').textContent(), 'alice', 'the script left the page');

  const asked = [];
  page.on('request', (request) => { if (request.url().startsWith(`${site.providers[0]}/auth?`)) asked.push(new URL(request.url()).searchParams); });
  await page.goto(`${site.origin}/app/secure?a=1&b=2`);
  assert.ok(atProvider(page), `nobody is asked to log in again: ${page.url()}`);
  assert.deepEqual(asked.map((q) => q.get('acr_values')), ['mfa']);
  assert.equal(await signIn(page), 1, 'the provider asks for the name again');
  assert.equal(page.url(), `${site.origin}/app/secure?a=1&b=2`);
  assert.equal(await page.locator('#user').textContent(), 'alice');

  assert.equal((await script()).status, 200);
  await page.reload();
  assert.equal(await page.locator('#query').textContent(), 'a=1&b=2');
  assert.equal(asked.length, 1, 'a login that is good enough is asked for again');
});
