// The pages of the gateway: everybody can read and work them, they look as their
// operator wants, and nothing foreign runs on them.
import { readFile } from 'node:fs/promises';

import { assert, atProvider, person, run, signIn, site } from './harness.mjs';

const axe = await readFile(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

// readable checks a page by the rules of WCAG 2.2 A and AA that axe knows, and by some
// that it does not.
async function readable(page, what) {
  await page.evaluate(axe);
  const { violations, unsure, contrasts } = await page.evaluate(async () => {
    const r = await window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
    return {
      violations: r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html)}`),
      unsure: r.incomplete.map((v) => v.id),
      contrasts: r.passes.filter((p) => p.id === 'color-contrast').flatMap((p) => p.nodes.map((n) => n.any[0].data.contrastRatio)),
    };
  });
  assert.deepEqual(violations, [], what);
  assert.deepEqual(unsure, [], what);
  assert.ok(contrasts.length >= 2 && Math.min(...contrasts) >= 4.5, `${what}: contrasts ${contrasts}`);
  assert.equal(await page.getByRole('main').count(), 1, what);
  const heading = await page.getByRole('heading', { level: 1 }).textContent();
  assert.ok((await page.title()).startsWith(heading) && heading !== '', `${what}: title ${await page.title()}`);

  // WCAG 1.4.10: 1280 pixels at 400 % are 320.
  const size = page.viewportSize();
  await page.setViewportSize({ width: 320, height: 256 });
  const wide = await page.evaluate(() => document.scrollingElement.scrollWidth);
  assert.ok(wide <= 320, `${what}: ${wide} pixels wide`);
  await page.setViewportSize(size);
}

// tabs walks through a page by keyboard and returns what has the focus on the way.
async function tabs(page, what) {
  const names = [];
  for (let i = 0; i < 20; i += 1) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const { activeElement: e, body } = document;
      const style = getComputedStyle(e);
      return e === body ? null : { name: e.textContent, outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 };
    });
    if (!at || names.includes(at.name)) break;
    assert.ok(at.outline, `${what}: nobody sees that ${at.name} has the focus`);
    names.push(at.name);
  }
  return names;
}

const brightness = (page) => page.evaluate(() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).map(Number);
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
});

await run(async (browser) => {
  for (const colorScheme of ['light', 'dark']) {
    const { context, page, violations } = await person(browser, { colorScheme });
    const foreign = [];
    page.on('request', (request) => { if (!request.url().startsWith(site.origin) && !request.url().startsWith('data:') && !atProvider(page)) foreign.push(request.url()); });

    for (const [what, address, status] of [
      ['choice', '/choice/a?b=c', 401],
      ['choice of an operator', '/themed/a?b=c', 401],
      ['end of a login', '/oauth2/callback?state=x&code=y', 400],
      ['logged out', '/oauth2/logout', 200],
      ['choice by a template', '/templated/a?b=c', 401],
    ]) {
      const response = await page.goto(site.origin + address);
      assert.equal(response.status(), status, what);
      // With a challenge that browsers know, such as Basic, there would be no page.
      assert.equal(response.headers()['www-authenticate'], status === 401 ? 'Bearer realm="sallyport"' : undefined, what);
      assert.match(response.headers()['content-security-policy'], /^default-src 'none'; style-src 'sha256-[^']+'; img-src data:; font-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'$/);
      if (what !== 'choice by a template') assert.deepEqual(violations, [], what);
      assert.ok(await brightness(page) > 0.5 === (colorScheme === 'light'), `${what} is not ${colorScheme}`);
      await readable(page, `${what}, ${colorScheme}`);
    }
    assert.deepEqual(foreign, [], 'the pages load something');

    // That template has a script and a style of its own, which the policy stops: this
    // is also how we know that violations are seen.
    assert.equal(violations.length, 3, violations.join('\n'));
    assert.ok(violations.every((v) => /inline (script|style|event handler)/.test(v)), violations.join('\n'));
    violations.length = 0;

    await page.goto(`${site.origin}/app/orders`);
    await signIn(page);
    await page.goto(`${site.origin}/oauth2/logout`);
    await readable(page, `logout, ${colorScheme}`);
    assert.deepEqual(await tabs(page, 'logout'), ['Log out', 'Stay logged in']);
    await page.evaluate(() => { document.querySelector('input[name=token]').value = 'x'; });
    const [refused] = await Promise.all([page.waitForResponse(`${site.origin}/oauth2/logout`), page.getByRole('button').click()]);
    assert.equal(refused.status(), 403);
    await page.waitForLoadState();
    await readable(page, `denied, ${colorScheme}`);
    assert.equal(await page.locator('code').textContent(), refused.headers()['x-request-id']);
    assert.deepEqual(violations, []);
    await context.close();
  }

  // By keyboard, without scripts.
  const { page } = await person(browser, { javaScriptEnabled: false });
  await page.goto(`${site.origin}/choice/a?b=c`);
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  assert.equal(await page.title(), 'Log in');
  assert.equal(await page.locator('main').ariaSnapshot(), `- main:
  - heading "Log in" [level=1]
  - paragraph: Choose where to log in.
  - list:
    - listitem:
      - link "Staff":
        - /url: /oauth2/login?return=%2Fchoice%2Fa%3Fb%3Dc
    - listitem:
      - link "Partners & guests of the Donaudampfschifffahrtsgesellschaftskapitänswitwenrentenauszahlungsstelle":
        - /url: /partner/login?return=%2Fchoice%2Fa%3Fb%3Dc`);
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForURL(`${site.providers[1]}/**`);
  await signIn(page, 'bob');
  assert.equal(page.url(), `${site.origin}/choice/a?b=c`);
  assert.equal(await page.locator('#user').textContent(), 'bob');

  // The other choice, by mouse, and in the operator's words.
  const other = await person(browser);
  await other.page.goto(`${site.origin}/themed/a?b=c`);
  assert.equal(await other.page.locator('html').getAttribute('lang'), 'de');
  assert.equal(await other.page.title(), 'Anmelden – Acme & Söhne');
  assert.equal(await other.page.getByRole('banner').textContent(), 'Acme & Söhne');
  assert.equal(await other.page.getByRole('contentinfo').textContent(), 'Hilfe: Durchwahl 42');
  assert.ok(await other.page.locator('header img').evaluate((i) => i.naturalWidth > 0), 'the logo is not shown');
  assert.equal(await other.page.getByRole('heading').evaluate((h) => getComputedStyle(h).textTransform), 'uppercase');
  assert.match(await other.page.evaluate(() => getComputedStyle(document.body, '::after').content), /^url\("data:image\/svg/);
  assert.deepEqual((await tabs(other.page, 'choice')).slice(1), ['Staff']);
  await other.page.getByRole('link', { name: 'Staff' }).click();
  await other.page.waitForURL(`${site.providers[0]}/**`);
  await signIn(other.page);
  assert.equal(other.page.url(), `${site.origin}/themed/a?b=c`);
  assert.deepEqual(other.violations, []);
});
