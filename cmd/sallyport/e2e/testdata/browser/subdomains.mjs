// Somebody logs in at one host below a domain, by way of the one that the provider
// knows, and is logged in at the others. A browser's own rules say where the cookies go.
import { assert, atProvider, person, run, signIn, site } from './harness.mjs';

const { shop } = site;
const at = (name) => shop.replace('//', `//${name}.`);
const attributes = ({ secure, httpOnly, sameSite, path, domain }) => ({ secure, httpOnly, sameSite, path, domain });
const shared = { secure: true, httpOnly: true, sameSite: 'Lax', path: '/', domain: '.shop.test' };
const named = async (context, url, name) => (await context.cookies(url)).filter((c) => c.name.startsWith(name));

await run(async (browser) => {
  const { context, page, violations } = await person(browser);
  const way = [];
  page.on('request', (request) => { if (request.isNavigationRequest()) way.push(request.url()); });
  const asked = `${at('a')}/app/orders?a=b&c=%20d`;
  await page.goto(asked);
  assert.ok(atProvider(page), `nobody is asked to log in: ${page.url()}`);
  const [flow, ...others] = await named(context, shop, '__Secure-sallyport-login-shared');
  assert.equal(others.length, 0);
  assert.deepEqual(attributes(flow), shared);
  assert.ok(flow.expires - Date.now() / 1000 <= 600, 'a login may take ten minutes');

  await signIn(page);
  assert.equal(page.url(), asked);
  assert.equal(await page.locator('#user').textContent(), 'alice');
  assert.equal(await page.locator('#query').textContent(), 'a=b&c=%20d');
  assert.equal(await page.locator('#cookies').textContent(), '', 'the upstream sees the session');
  assert.deepEqual(way.filter((url) => url.includes('/shared/')).map((url) => url.split('?')[0]), [`${shop}/shared/callback`]);
  assert.equal((await named(context, shop, '__Secure-sallyport-login-')).length, 0, 'the cookie of the login is still there');
  const session = await named(context, shop, '__Secure-sallyport-shared');
  assert.ok(session.length > 0, 'no session');
  for (const c of session) assert.deepEqual(attributes(c), shared);
  for (const elsewhere of [site.origin, shop.replace('shop.test', 'evilshop.test'), shop.replace('shop.test', 'shop.test.evil.test')]) {
    assert.equal((await named(context, elsewhere, '__Secure-sallyport-')).length, 0, elsewhere);
  }

  // The other hosts have the session without asking anybody.
  way.length = 0;
  for (const host of [at('b'), at('b.c'), shop]) {
    await page.goto(`${host}/app/second`);
    assert.equal(page.url(), `${host}/app/second`);
    assert.equal(await page.locator('#user').textContent(), 'alice');
  }
  assert.deepEqual(way, [at('b'), at('b.c'), shop].map((host) => `${host}/app/second`));

  // A neighbour knows the token of the session's logout form, and may not use it.
  await page.goto(`${at('b')}/app/`);
  const out = `${at('a')}/shared/logout`;
  const [refused] = await Promise.all([
    page.waitForResponse(out),
    page.evaluate(async (action) => {
      const { token } = await (await fetch('/shared/logout', { headers: { accept: 'application/json' } })).json();
      const form = Object.assign(document.createElement('form'), { method: 'post', action });
      form.append(Object.assign(document.createElement('input'), { name: 'token', value: token }));
      document.body.append(form);
      form.submit();
    }, out),
  ]);
  assert.equal(refused.status(), 403);
  await page.waitForURL(out);
  await page.goto(asked);
  assert.equal(await page.locator('#user').textContent(), 'alice');

  // Logged out at one host, at the provider, and at all hosts.
  await page.goto(out);
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL(`${site.providers[2]}/session/end**`);
  assert.equal((await named(context, shop, '__Secure-sallyport-')).length, 0, 'the session is still there');
  await page.locator('button[value=yes]').click();
  await page.waitForURL(`${shop}/public/bye`);
  for (const host of [at('b'), shop]) {
    await page.goto(`${host}/app/second`);
    assert.ok(atProvider(page), `still logged in at ${host}`);
    assert.equal(await page.locator('input[name=login]').count(), 1, 'still logged in at the provider');
  }

  // Two tabs at two hosts: the login that began last ends in its page, the other has
  // to begin again.
  const tab = await context.newPage();
  await page.goto(`${at('a')}/app/first`);
  await tab.goto(`${at('b')}/app/second`);
  await signIn(tab);
  assert.equal(tab.url(), `${at('b')}/app/second`);
  await signIn(page);
  assert.equal(page.url().split('?')[0], `${shop}/shared/callback`);
  assert.equal(await page.title(), 'Please log in again');
  assert.deepEqual(violations, []);
});
