// A page of many parts is looked at past the end of the access token. The provider
// takes a refresh token once, and ends the session when it sees one again.
import { assert, atProvider, person, run, sessionOf, signIn, site, until } from './harness.mjs';

const renewals = async () => (await fetch(`${site.providers[0]}/test/renewals`)).json();

await run(async (browser) => {
  const { context, page } = await person(browser);
  await page.goto(`${site.origin}/app/many`);
  await signIn(page);
  const first = Date.now();
  const cookies = async () => (await sessionOf(context, 'corp')).map((c) => c.value).join();
  const before = await cookies();

  const answers = new Map();
  const left = [];
  page.on('response', (response) => answers.set(response.status(), (answers.get(response.status()) ?? 0) + 1));
  page.on('request', (request) => { if (!request.url().startsWith(site.origin)) left.push(request.url()); });
  await until('the first access token ended, and the session was renewed twice', async () => {
    await page.goto(`${site.origin}/app/many`);
    assert.ok(!atProvider(page), 'the user is asked to log in');
    assert.equal(await page.locator('#user').textContent(), 'alice');
    const broken = await page.locator('img').evaluateAll((all) => all.filter((i) => i.naturalWidth === 0).length);
    assert.equal(broken, 0, 'pictures are missing');
    // Scripts ask at the same moment, of which one is the first past the end.
    const statuses = await page.evaluate(async () => (await Promise.all(
      Array.from({ length: 20 }, (_, i) => fetch(`/app/data?${i}`, { headers: { accept: 'application/json' } })),
    )).map((r) => r.status));
    assert.deepEqual(statuses, Array(20).fill(200));
    const { used } = await renewals();
    return Object.keys(used).length >= 2 && Date.now() - first > site.ttl * 1000;
  });
  assert.deepEqual(left, [], 'requests left the gateway');
  assert.deepEqual([...answers.keys()], [200]);
  assert.notEqual(await cookies(), before);

  const { used, refused } = await renewals();
  assert.equal(refused, 0);
  assert.deepEqual(Object.values(used).filter((times) => times !== 1), [], 'a refresh token was used again');

  // Two tabs with the same session ask at once.
  const tab = await context.newPage();
  await Promise.all([page.reload(), tab.goto(`${site.origin}/app/many`)]);
  assert.equal(await tab.locator('#user').textContent(), 'alice');
  assert.equal(await page.locator('#user').textContent(), 'alice');
  assert.equal((await renewals()).refused, 0);
});
