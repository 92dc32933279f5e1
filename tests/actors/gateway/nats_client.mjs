// A NATS client that shares no code with Orchestra: asks `orchestra.chat` and prints one JSON object.
//
//   node nats_client.mjs URL COMMAND [JSON]
//
// ORCHESTRA_TEST_NODE_MODULES is the folder that `npm install` filled.
import { createRequire } from "node:module";

const require = createRequire(process.env.ORCHESTRA_TEST_NODE_MODULES + "/package.json");
const { connect, createInbox, headers } = require("@nats-io/transport-node");
const { Svcm } = require("@nats-io/services");

const [url, command, text] = process.argv.slice(2);
const args = JSON.parse(text ?? "{}");
const nc = await connect({ servers: url });

const body = () => JSON.stringify(args.body);

function shown(message) {
  const found = {};
  for (const [key, values] of message.headers ?? []) found[key] = values[0];
  return { text: message.string(), headers: found };
}

async function collect(subscription) {
  const messages = [];
  for await (const message of subscription) {
    messages.push(shown(message));
    if (message.data.length === 0) break;
  }
  return messages;
}

const commands = {
  // Plain request and reply; counts what else arrives on the same inbox.
  async request() {
    const inbox = createInbox();
    const subscription = nc.subscribe(inbox);
    nc.publish("orchestra.chat", body(), { reply: inbox });
    const messages = [];
    const arriving = (async () => {
      for await (const message of subscription) messages.push(shown(message));
    })();
    while (messages.length === 0) await new Promise((done) => setTimeout(done, 5));
    await nc.request("orchestra.chat", body(), { timeout: 20_000 }); // what came late has come by now
    await nc.flush();
    subscription.unsubscribe();
    await arriving;
    return { messages };
  },

  // The client's own way to read until an empty message.
  async stream() {
    const messages = [];
    const replies = await nc.requestMany("orchestra.chat", body(), { strategy: "sentinel", maxWait: 20_000 });
    for await (const message of replies) messages.push(shown(message));
    return { messages };
  },

  async discover() {
    const client = new Svcm(nc).client();
    const gather = async (found) => {
      const all = [];
      for await (const one of found) all.push(one);
      return all;
    };
    return {
      ping: await gather(await client.ping("orchestra")),
      info: await gather(await client.info("orchestra")),
      stats: await gather(await client.stats("orchestra")),
    };
  },

  // Reads two chunks, then stops listening and stays connected until it is told to end.
  async leave() {
    const inbox = createInbox();
    const subscription = nc.subscribe(inbox, { max: 2 });
    nc.publish("orchestra.chat", body(), { reply: inbox });
    const messages = [];
    for await (const message of subscription) messages.push(shown(message));
    console.log(JSON.stringify({ messages }));
    await new Promise((done) => process.stdin.once("data", done).once("end", done));
    return {};
  },

  // Cancels by a key of its own once `args.after` chunks have come (0: as soon as `cancel` is answered).
  async cancel() {
    const inbox = createInbox();
    const subscription = nc.subscribe(inbox);
    const named = headers();
    named.set("Orchestra-Cancel-Key", "my-own-name");
    nc.publish("orchestra.chat", body(), { reply: inbox, headers: named });
    const ending = collect(args.body.stream ? subscription : first(subscription));
    // The chat may not be known yet, and the answer may be late: ask again until any answer comes.
    const answers = createInbox();
    const answered = first(nc.subscribe(answers)).next();
    const cancel = () => nc.publish("orchestra.chat.cancel", "my-own-name", { reply: answers });
    const again = setInterval(cancel, 200);
    cancel();
    const answer = (await answered).value.json();
    clearInterval(again);
    return { answer, messages: await ending };
  },
};

async function* first(subscription) {
  for await (const message of subscription) {
    yield message;
    return;
  }
}

const result = await commands[command]();
console.log(JSON.stringify(result));
await nc.close();
