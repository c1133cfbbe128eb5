# Keeps about 40 MiB of objects in Ruby's heap, says so, and waits for the end of its input.
kept = Array.new(1_000_000) { |at| at.to_f.to_s.byteslice(0, 4) }
puts "ready"
$stdout.flush
$stdin.read
puts kept.length
