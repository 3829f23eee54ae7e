// Loads a weight file with gemma.cpp and prints the logits after given tokens, then the tokens it goes on with.
//
//     run_tokens FILE.sbs N_GENERATED TOKEN...
//
// prints "loaded MODEL", "logits" with a number for every token of the vocabulary, and "tokens" with those generated, greedily.
#include <stdio.h>
#include <stdlib.h>

#include <string>
#include <vector>

#include "gemma/configs.h"
#include "gemma/gemma.h"
#include "gemma/gemma_args.h"
#include "gemma/kv_cache.h"
#include "ops/matmul.h"
#include "util/threading_context.h"

int main(int argc, char** argv) {
  if (argc < 4) return 64;
  const std::string weights = argv[1];
  const size_t n_generated = static_cast<size_t>(atoi(argv[2]));
  std::vector<int> prompt;
  for (int i = 3; i < argc; ++i) prompt.push_back(atoi(argv[i]));

  gcpp::ThreadingArgs threading;
  threading.max_lps = 1;
  gcpp::ThreadingContext ctx(threading);
  gcpp::MatMulEnv env(ctx);
  gcpp::LoaderArgs loader("", weights);
  gcpp::InferenceArgs inference;
  const gcpp::Gemma gemma(loader, inference, ctx);
  printf("loaded %s\n", gemma.Config().display_name.c_str());

  gcpp::KVCache kv_cache(gemma.Config(), inference, ctx.allocator);
  std::vector<int> made;
  bool is_first = true;
  gcpp::RuntimeConfig runtime = {
      .max_generated_tokens = n_generated, .temperature = 0.0f, .verbosity = 0};
  runtime.sample_func = [&](size_t, size_t, gcpp::Logits logits, size_t) -> gcpp::TokenAndProb {
    if (is_first) {
      printf("logits");
      for (size_t i = 0; i < logits.size(); ++i) printf(" %.9g", static_cast<double>(logits[i]));
      printf("\n");
    }
    is_first = false;
    int best = 0;
    for (size_t i = 1; i < logits.size(); ++i) {
      if (logits[i] > logits[best]) best = static_cast<int>(i);
    }
    made.push_back(best);
    return gcpp::TokenAndProb{.token = best, .prob = 1.0f};
  };
  runtime.batch_stream_token = [](size_t, size_t, int, float) { return true; };
  gcpp::TimingInfo timing;
  gemma.Generate(runtime, gcpp::PromptTokens(prompt.data(), prompt.size()), 0, kv_cache, env, timing);
  printf("tokens");
  for (const int token : made) printf(" %d", token);
  printf("\n");
  return 0;
}
