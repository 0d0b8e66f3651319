// work() of the examples: note that it has begun, then hang if there is a file that says so.
const fs = require("fs");

function work(job) {
  fs.appendFileSync("worked", job + "\n");
  if (fs.existsSync("hang")) return new Promise(() => process.stdin.resume());
}
