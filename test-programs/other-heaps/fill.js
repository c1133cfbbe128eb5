// Keeps about 64 MiB of objects in V8's heap, says so, and waits for the end of its input.
const kept = [];
for (let at = 0; at < 500000; at++) {
  kept.push({ at, next: at + 1.5, name: "object " + at });
}
console.log("ready");
process.stdin.resume();
process.stdin.on("end", () => process.exit(kept.length === 0 ? 1 : 0));
