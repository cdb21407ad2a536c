// What the scenarios beside share: a headless Chromium that knows no other hosts than
// those of the test, and steps that every login has.
//
// The scenario is told of the site by a JSON object in SITE. It prints one line of
// JSON with the number of its assertions and ends with status 0, or it ends otherwise.
import nodeAssert from 'node:assert/strict';

import { chromium } from 'playwright-core';

export const site = JSON.parse(process.env.SITE);
export const patience = 30_000; // milliseconds for anything to happen, on a machine that is busy

let assertions = 0;
export const assert = new Proxy(nodeAssert, {
  get: (target, name) => (...args) => {
    assertions += 1;
    return target[name](...args);
  },
});

// launch starts the browser. It trusts the key of the gateway's certificate and no
// other that is not in its own store: the test's authority is in no store, and
// ignoring all errors would hide one in what the gateway presents. Names resolve to
// this machine or not at all.
export async function launch() {
  return chromium.launch({
    executablePath: site.chromium,
    timeout: patience,
    args: [
      `--ignore-certificate-errors-spki-list=${site.key}`,
      '--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
      '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage', '--no-first-run',
    ],
  });
}

// person is somebody at a browser of their own. What the console says of the content
// security policy of the gateway's pages is an error.
export async function person(browser, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(patience);
  const violations = [];
  context.on('console', (message) => {
    if (/content security policy/i.test(message.text()) && !/^http:\/\/127/.test(message.location().url)) violations.push(message.text());
  });
  return { context, violations, page: await context.newPage() };
}

export const atProvider = (page) => site.providers.some((issuer) => page.url().startsWith(issuer));

// signIn goes through the provider's own pages until the browser is elsewhere. It
// returns how often it was asked for a name.
export async function signIn(page, name = 'alice') {
  let asked = 0;
  for (let i = 0; atProvider(page) && i < 5; i += 1) {
    const login = page.locator('input[name=login]');
    if (await login.count() > 0) {
      asked += 1;
      await login.fill(name);
      await page.locator('input[name=password]').fill('x');
    }
    await Promise.all([page.waitForEvent('framenavigated'), page.locator('button[type=submit]').click()]);
    await page.waitForLoadState();
  }
  assert.ok(!atProvider(page), `still at ${page.url()}`);
  return asked;
}

export const sessionOf = async (context, name) => (await context.cookies(site.origin)).filter((c) => c.name.startsWith(`__Host-sallyport-${name}`));

// until asks again until the answer is right; requests take their time.
export async function until(what, ask) {
  const end = Date.now() + patience;
  for (;;) {
    const got = await ask();
    if (got) return got;
    if (Date.now() > end) throw new Error(`${what}: not within ${patience} ms`);
  }
}

// run runs a scenario in a browser of its own.
export async function run(scenario) {
  const browser = await launch();
  try {
    await scenario(browser);
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify({ assertions }));
}
