// Sessions end when their owner wants it, at the gateway or at the provider, and not
// when another site does.
import { assert, atProvider, person, run, sessionOf, signIn, site, until } from './harness.mjs';

await run(async (browser) => {
  const { context, page, violations } = await person(browser);
  const app = `${site.origin}/app/orders`;
  const logIn = async () => {
    await page.goto(app);
    await signIn(page);
    assert.equal(await page.locator('#user').textContent(), 'alice');
  };
  await logIn();

  // Another site tries a picture, a link, a form by GET, one by POST with a made-up
  // token, and a script.
  const evil = 'https://evil.test/';
  const out = `${site.origin}/oauth2/logout`;
  let attack = '';
  await context.route(`${evil}**`, (route) => route.fulfill({ contentType: 'text/html', body: attack }));
  const still = async (how) => {
    assert.ok((await sessionOf(context, 'corp')).length > 0, `${how}: the cookie is gone`);
    await page.goto(app);
    assert.equal(page.url(), app, `${how}: logged out`);
    assert.equal(await page.locator('#user').textContent(), 'alice', how);
  };
  for (const [how, body] of [
    ['picture', `<img src="${out}" alt="">`],
    ['frame', `<iframe src="${out}"></iframe>`],
    ['script', `<script>fetch('${out}', { method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams({ token: 'x' }) })</script>`],
  ]) {
    attack = body;
    const answered = page.waitForEvent('requestfinished', (r) => r.url() === out).catch(() => null);
    const failed = page.waitForEvent('requestfailed', (r) => r.url() === out).catch(() => null);
    await page.goto(evil);
    await Promise.race([answered, failed]);
    await still(how);
  }
  for (const [how, method, token] of [['form by GET', 'get', ''], ['form by POST', 'post', 'x'], ['form without a token', 'post', '']]) {
    attack = `<form method="${method}" action="${out}"><input name="token" value="${token}"><button>Win</button></form>`;
    await page.goto(evil);
    await page.getByRole('button', { name: 'Win' }).click();
    await page.waitForURL(`${out}**`);
    assert.equal(await page.getByRole('heading').textContent(), 'Log out?', `${how}: not what is so`);
    await still(how);
  }
  // With the very token that the user's own page has, another site gets nowhere, and
  // neither does a neighbour below the same domain, whose forms bring the cookies.
  const { token } = await page.evaluate(async () => (await fetch('/oauth2/logout', { headers: { accept: 'application/json' } })).json());
  attack = `<form method="post" action="${out}"><input name="token" value="${token}"><button>Win</button></form>`;
  const neighbour = 'https://evil.app.test/';
  await context.route(`${neighbour}**`, (route) => route.fulfill({ contentType: 'text/html', body: attack }));
  for (const from of [evil, neighbour]) {
    await page.goto(from);
    const [answer] = await Promise.all([page.waitForResponse(out), page.getByRole('button', { name: 'Win' }).click()]);
    assert.equal(answer.status(), from === neighbour ? 403 : 303);
    await page.waitForLoadState();
    assert.equal(await page.getByRole('heading').textContent(), from === neighbour ? 'Access denied' : 'Log out?');
    await still(`form by POST with the token from ${from}`);
  }

  // By the link of the app, the gateway's button, and the provider's.
  await page.getByRole('link', { name: 'Log out' }).click();
  await page.waitForURL(out);
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL(`${site.providers[0]}/session/end**`);
  assert.equal((await sessionOf(context, 'corp')).length, 0, 'the session is still there');
  await page.locator('button[value=yes]').click();
  await page.waitForURL(`${site.origin}/public/bye`);
  await page.goto(app);
  assert.ok(atProvider(page), 'still logged in');
  assert.equal(await page.locator('input[name=login]').count(), 1, 'still logged in at the provider');

  // By a script of the app, as a menu would.
  await signIn(page);
  await page.locator('#out').click();
  await page.waitForURL(`${site.providers[0]}/session/end**`);
  await page.locator('button[value=yes]').click();
  await page.waitForURL(`${site.origin}/public/bye`);
  await page.goto(app);
  assert.ok(atProvider(page), 'still logged in');

  // The provider ends the session by back channel: the next request is not logged in.
  await signIn(page);
  const tab = await context.newPage();
  await tab.goto(`${site.providers[0]}/session/end`);
  await tab.locator('button[value=yes]').click();
  await tab.waitForURL(`${site.providers[0]}/session/end/success`);
  await until('the session ended', async () => (await page.evaluate(async () => (await fetch('/app/data', { headers: { accept: 'application/json' } })).status)) === 401);
  await page.reload();
  assert.ok(atProvider(page), 'still logged in');

  // A provider that does not ask again sends the browser on to another site at once:
  // the form's policy must let it.
  await page.goto(`${site.origin}/partners/`);
  await signIn(page);
  assert.equal(page.url(), `${site.origin}/partners/`);
  await page.goto(`${site.origin}/partner/logout`);
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL(site.bye);
  assert.equal((await sessionOf(context, 'partner')).length, 0);
  assert.deepEqual(violations, []);
});
