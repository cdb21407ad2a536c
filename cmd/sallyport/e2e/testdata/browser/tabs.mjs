// Several tabs of one browser ask to log in at once, as when it is started again with
// the tabs of yesterday.
import { assert, atProvider, person, run, sessionOf, signIn, site } from './harness.mjs';

await run(async (browser) => {
  const first = await person(browser);
  const pages = await Promise.all([0, 1, 2].map(() => first.context.newPage()));
  await Promise.all(pages.map((page, i) => page.goto(`${site.origin}/app/tab?${i}`)));
  assert.ok(pages.every(atProvider));
  for (const i of [1, 2, 0]) {
    await signIn(pages[i], 'alice');
    assert.equal(pages[i].url(), `${site.origin}/app/tab?${i}`);
    assert.equal(await pages[i].locator('#user').textContent(), 'alice');
  }
  for (const page of pages) {
    await page.reload();
    assert.equal(await page.locator('#user').textContent(), 'alice');
  }
  assert.equal((await sessionOf(first.context, 'login-')).length, 0, 'cookies of logins are left');
  await first.context.close();

  // Somebody who never ends a login does not fill the cookie jar, and the oldest of
  // many leads to a page that says what to do, and to no loop.
  const { context, page } = await person(browser);
  await page.goto(`${site.origin}/app/tab?oldest`);
  const other = await context.newPage();
  for (let i = 0; i < 6; i += 1) await other.goto(`${site.origin}/app/tab?${i}`);
  const flows = await sessionOf(context, 'login-');
  assert.ok(flows.length > 1 && flows.length <= 5, `${flows.length} logins are kept`);
  await signIn(page);
  assert.equal(new URL(page.url()).pathname, '/oauth2/callback');
  assert.equal(await page.getByRole('heading').textContent(), 'Please log in again');
  await page.getByRole('link', { name: 'Begin again' }).click();
  await page.waitForURL(`${site.origin}/**`);
  assert.equal(await page.locator('#user').textContent(), 'alice');
});
