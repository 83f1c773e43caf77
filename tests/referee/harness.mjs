// Runs the programs that a referee test compares, and collects what did not hold.
import {spawnSync} from "node:child_process";
import {mkdirSync, rmSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "..", "..");

// node-llama-cpp now and then waits for ever after a model that it could not load.
const PEER_TIMEOUT_MS = 120_000;

function spawn(program, args, options = {}) {
  const done = spawnSync(program, args, {encoding: "utf8", maxBuffer: 1 << 28, ...options});
  if (done.error?.code === "ETIMEDOUT") return null;
  if (done.error) throw done.error;
  if (done.status !== 0) {
    throw new Error(`${program} ${args.join(" ")}: exit ${done.status ?? done.signal}\n` +
                    `${done.stdout.slice(-1000)}${done.stderr.slice(-3000)}`);
  }
  return done.stdout;
}

// A test's programs and its folder for files.
export class Referee {
  constructor(carat, folder) {
    this.program = carat;
    this.folder = folder;
    this.failures = [];
    this.checks = 0;
    rmSync(folder, {recursive: true, force: true});
    mkdirSync(folder, {recursive: true});
  }

  path(name) { return join(this.folder, name); }

  // Standard output of carat.
  carat(args, {input = ""} = {}) { return spawn(this.program, args, {input}); }

  // Standard output of a script of this folder, run apart because llama.cpp aborts where it finds
  // a file wrong.
  peer(script, args) {
    for (let attempt = 0; attempt < 2; ++attempt) {
      const out = spawn(process.execPath, [join(here, script), ...args],
                        {timeout: PEER_TIMEOUT_MS, killSignal: "SIGKILL"});
      if (out !== null) return out;
    }
    throw new Error(`${script} ${args.join(" ")}: no answer in ${PEER_TIMEOUT_MS / 1000} s, twice`);
  }

  check(holds, message) {
    ++this.checks;
    if (!holds) this.failures.push(message);
    if (!holds) console.log(`FAILED: ${message}`);
  }

  // Runs one comparison; what it throws is a failure.
  run(name, body) {
    const before = this.failures.length;
    try {
      body();
    } catch (error) {
      this.failures.push(name);
      console.log(`FAILED: ${name}: ${error.message}`);
    }
    if (this.failures.length === before) console.log(`ok: ${name}`);
  }

  // The exit code of the test.
  finish() {
    console.log(`${this.checks} checks, ${this.failures.length} failures`);
    return this.failures.length > 0 || this.checks === 0 ? 1 : 0;
  }
}
