// Runs Node handlers inside a sandbox. It imports nothing but what Node brings.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";

const BASE = "/2018-06-01/runtime";
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const STREAMED = Symbol("streamed");

/** Status and headers of an answer over HTTP go before its body, divided from it by eight zero bytes. */
const HTTP_TYPE = "application/vnd.awslambda.http-integration-response";

function begin(method, place, headers) {
  return http.request({ host, port, method, path: BASE + place, headers, agent });
}

/** Sends a request, and answers with the headers and the body of what comes back. */
function ask(method, place, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = begin(method, place, { "Content-Length": Buffer.byteLength(body ?? ""), ...headers });
    request.on("error", reject);
    request.on("response", (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(pieces) }));
      response.on("error", reject);
    });
    request.end(body);
  });
}

function described(error) {
  if (!(error instanceof Error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
  return { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? "").split("\n") };
}

/** An answer that is sent as it is written. */
class ResponseStream extends Writable {
  constructor(number) {
    super();
    this.number = number;
    this.kind = "application/octet-stream";
    this.prelude = null;
    this.request = null;
    this.answered = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.answered.catch(() => {});
  }

  setContentType(kind) {
    this.kind = kind;
  }

  open() {
    if (this.request !== null) return;
    this.request = begin("POST", `/invocation/${this.number}/response`, {
      "Lambda-Runtime-Function-Response-Mode": "streaming",
      "Content-Type": this.kind,
      "Transfer-Encoding": "chunked",
      Trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
    });
    this.request.on("error", this.reject);
    this.request.on("response", (response) => response.resume().on("end", this.resolve));
    if (this.prelude !== null) this.request.write(this.prelude);
  }

  _write(piece, encoding, done) {
    this.open();
    this.request.write(piece, done);
  }

  _final(done) {
    this.open();
    this.request.end(done);
  }

  /** Ends the answer with the news that it is not whole. */
  async fail(error) {
    const text = described(error);
    this.open();
    this.request.addTrailers({
      "Lambda-Runtime-Function-Error-Type": text.errorType,
      "Lambda-Runtime-Function-Error-Body": Buffer.from(JSON.stringify(text)).toString("base64"),
    });
    this.request.end();
    await this.answered;
  }
}

globalThis.awslambda = {
  streamifyResponse(handler) {
    handler[STREAMED] = true;
    return handler;
  },
  HttpResponseStream: {
    from(stream, head) {
      stream.setContentType(HTTP_TYPE);
      stream.prelude = Buffer.concat([Buffer.from(JSON.stringify(head)), Buffer.alloc(8)]);
      return stream;
    },
  },
};

async function load() {
  const text = process.env._HANDLER;
  const folder = path.dirname(text);
  const [file, ...names] = path.basename(text).split(".");
  const place = path.resolve(process.env.LAMBDA_TASK_ROOT, folder, file);
  const found = [".js", ".mjs", ".cjs"].map((end) => place + end).find((each) => fs.existsSync(each));
  if (found === undefined) {
    throw Object.assign(new Error(`Cannot find module '${file}'`), { name: "Runtime.ImportModuleError" });
  }
  const loaded = await import(pathToFileURL(found).href);
  for (const start of [loaded, loaded.default]) {
    const handler = names.reduce((value, name) => value?.[name], start);
    if (typeof handler === "function") return handler;
  }
  throw Object.assign(new Error(`${text} is undefined or not exported`), { name: "Runtime.HandlerNotFound" });
}

function contextOf(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const client = headers["lambda-runtime-client-context"];
  return {
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: client ? JSON.parse(client) : undefined,
    identity: undefined,
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
}

/** Calls a handler that answers with a promise, with a value, or by a callback. */
function call(handler, event, context) {
  return new Promise((resolve, reject) => {
    const callback = (error, answer) => (error ? reject(error) : resolve(answer));
    const answer = handler(event, context, callback);
    // Who takes no callback answers with what it returns.
    if (typeof answer?.then === "function") answer.then(resolve, reject);
    else if (handler.length < 3) resolve(answer);
  });
}

async function serve(handler, event, context) {
  const number = context.awsRequestId;
  if (handler[STREAMED]) {
    const stream = new ResponseStream(number);
    try {
      await handler(event, stream, context);
      if (!stream.writableEnded) stream.end();
      await stream.answered;
    } catch (error) {
      console.error(error);
      await stream.fail(error);
    }
    return;
  }
  try {
    const answer = await call(handler, event, context);
    await ask("POST", `/invocation/${number}/response`, JSON.stringify(answer === undefined ? null : answer));
  } catch (error) {
    console.error(error);
    const text = described(error);
    const headers = { "Lambda-Runtime-Function-Error-Type": text.errorType };
    await ask("POST", `/invocation/${number}/error`, JSON.stringify(text), headers);
  }
}

let handler;
try {
  handler = await load();
} catch (error) {
  console.error(error);
  const text = described(error);
  await ask("POST", "/init/error", JSON.stringify(text), { "Lambda-Runtime-Function-Error-Type": text.errorType });
  process.exit(1);
}
for (;;) {
  const next = await ask("GET", "/invocation/next");
  await serve(handler, JSON.parse(next.body), contextOf(next.headers));
}
