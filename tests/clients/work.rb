# work() of the examples: note that it has begun, then hang if there is a file that says so.
def work(job)
  File.write("worked", "#{job}\n", mode: "a")
  STDIN.read if File.exist?("hang")
end
