// Somebody asks for a page, logs in, and has it; then for a second one, which needs no
// other login.
import { assert, atProvider, person, run, sessionOf, signIn, site } from './harness.mjs';

await run(async (browser) => {
  const { context, page, violations } = await person(browser);
  const asked = `${site.origin}/app/orders?a=b&c=%20d&e=%C3%A9`;
  await page.goto(asked);
  assert.ok(atProvider(page), `nobody is asked to log in: ${page.url()}`);

  const [flow, ...others] = await sessionOf(context, 'login-corp');
  assert.equal(others.length, 0);
  assert.deepEqual(
    { secure: flow.secure, httpOnly: flow.httpOnly, sameSite: flow.sameSite, path: flow.path, domain: flow.domain },
    { secure: true, httpOnly: true, sameSite: 'Lax', path: '/', domain: 'app.test' },
  );
  assert.ok(flow.expires - Date.now() / 1000 <= 600, 'a login may take ten minutes');

  await signIn(page);
  assert.equal(page.url(), asked);
  assert.equal(await page.locator('#user').textContent(), 'alice');
  assert.equal(await page.locator('#query').textContent(), 'a=b&c=%20d&e=%C3%A9');

  assert.equal((await sessionOf(context, 'login-')).length, 0, 'the cookie of the login is still there');
  const session = await sessionOf(context, 'corp');
  assert.ok(session.length > 0, 'no session');
  for (const c of session) {
    assert.deepEqual(
      { secure: c.secure, httpOnly: c.httpOnly, sameSite: c.sameSite, path: c.path, domain: c.domain },
      { secure: true, httpOnly: true, sameSite: 'Lax', path: '/', domain: 'app.test' },
    );
  }
  assert.equal(await page.evaluate(() => document.cookie), '', 'scripts see the session');
  assert.equal(await page.locator('#cookies').textContent(), '', 'the upstream sees the session');

  const seen = [];
  page.on('request', (request) => seen.push(request.url()));
  await page.reload();
  assert.equal(page.url(), asked);
  assert.equal(await page.locator('#user').textContent(), 'alice');
  const tab = await context.newPage();
  await tab.goto(`${site.origin}/app/second`);
  assert.equal(await tab.locator('#user').textContent(), 'alice');
  assert.deepEqual(seen.filter((url) => site.providers.some((issuer) => url.startsWith(issuer))), [], 'reloading logs in again');

  // A link on another site leads to the page as well: SameSite=Lax sends the session.
  await context.route('https://other.test/', (route) => route.fulfill({ contentType: 'text/html', body: `<a href="${asked}">orders</a>` }));
  await tab.goto('https://other.test/');
  await tab.getByRole('link', { name: 'orders' }).click();
  await tab.waitForURL(asked);
  assert.equal(await tab.locator('#user').textContent(), 'alice');
  assert.deepEqual(violations, []);
});
