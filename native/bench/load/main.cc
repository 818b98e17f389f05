// bench-load: tunnels through a proxy, past it, or by turns, and a JSON report of how they went.
//
// Each tunnel is planned from the seed (plan.h), verified byte by byte (talk.h) and counted (tally.h). The exit
// status is 0 even when tunnels failed: the report says so, and whoever reads it judges.
#include <signal.h>
#include <stdio.h>

#include "common/net.h"
#include "load/plan.h"
#include "load/runner.h"

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  bench::raise_descriptors();
  bench::Options options(argc, argv);
  bench::Settings settings = bench::read_settings(&options);
  options.finish("The load generator. The report is one JSON object, the last line of standard output.");
  bench::Runner runner(settings);
  printf("%s\n", runner.run().c_str());
  return 0;
}
