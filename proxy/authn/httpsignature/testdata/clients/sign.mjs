// Signs requests as clients of two libraries do: reads JSON from standard input, a list of
// {library, key, alg, id, method, url, headers, body, created, nonce}, and prints the list of their headers.
import { constants, createHash, sign } from "node:crypto";
import { text } from "node:stream/consumers";
import { createSigner, httpbis } from "http-message-signatures";
import { signatureHeaders } from "web-bot-auth";
import { signerFromJWK } from "web-bot-auth/crypto";

async function plain(o) {
  const fields = ["@method", "@authority", "@path", "@query", "content-type"];
  const headers = { "Content-Type": "application/json", ...o.headers };
  if (o.body) {
    headers["Content-Digest"] = `sha-512=:${createHash("sha512").update(o.body).digest("base64")}:`;
    fields.push("content-digest");
  }
  const key = createSigner(o.alg.startsWith("hmac") ? Buffer.from(o.key) : o.key, o.alg, o.id);
  if (o.alg === "rsa-pss-sha512" && o.library !== "long-salt") {
    // The library leaves the salt to Node.js, which makes it as long as fits.
    const options = { key: o.key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 64 };
    key.sign = async (data) => sign("sha512", data, options);
  }
  const signed = await httpbis.signMessage(
    { key, fields, params: ["created", "keyid", "alg", "nonce"], paramValues: { created: new Date(o.created * 1000), nonce: o.nonce } },
    { method: o.method, url: o.url, headers },
  );
  return signed.headers;
}

async function bot(o) {
  const request = new Request(o.url, { headers: { "Signature-Agent": '"https://bot.example"' } });
  const created = new Date(o.created * 1000);
  const expires = new Date((o.created + 300) * 1000);
  const out = await signatureHeaders(request, await signerFromJWK(JSON.parse(o.key)), { created, expires });
  return { "Signature-Agent": '"https://bot.example"', ...out };
}

const orders = JSON.parse(await text(process.stdin));
console.log(JSON.stringify(await Promise.all(orders.map((o) => (o.library === "web-bot-auth" ? bot(o) : plain(o))))));
