#include "audit/corpus.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include "audit/conversation.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "text/chat.h"

namespace carat::audit {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;
constexpr int64_t kPromptTokens = 64;
constexpr const char* kRequest = "Write a page of text.";

bool is_jsonl(const std::string& path) { return path.ends_with(".jsonl"); }

bool is_domain(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

std::vector<Document> documents_of(const std::string& path, std::string text) {
  if (!is_jsonl(path)) return {Document{std::move(text), {}}};
  try {
    return parse_documents(text);
  } catch (const Error& e) {
    throw e.with_file(path);
  }
}

// What was written, without the template.
std::vector<int32_t> plain_tokens(const Document& document, const text::Tokenizer& tokenizer) {
  if (document.messages.empty()) return tokenizer.encode(document.text);
  std::string all;
  for (const text::Message& message : document.messages) {
    for (const text::Part& part : message.content) all += part.text + "\n";
  }
  return tokenizer.encode(all);
}

Chunk conversation_chunk(const Document& document, const text::Tokenizer& tokenizer,
                         const CorpusOptions& options, TextCounts& counts) {
  Chunk chunk;
  text::ChatOptions chat;
  chat.small_family = options.small_family;
  chat.generation_prompt = false;
  chunk.tokens = text::render_chat(tokenizer, document.messages, chat);
  const auto length = static_cast<int64_t>(chunk.tokens.size());
  if (length > options.context) {
    counts.cut_tokens += length - options.context;
    chunk.tokens.resize(static_cast<size_t>(options.context));
  }
  const std::vector<int32_t> answers = model_turn_positions(chunk.tokens, tokenizer);
  if (!answers.empty()) chunk.prompt = answers.front() + 1;
  for (const int32_t i : answers) {
    if (i + 1 >= options.min_context) chunk.compared.push_back(i);
  }
  return chunk;
}

// Chunks of one file, and what is in it.
struct FileChunks {
  std::vector<Chunk> chunks;
  TextCounts counts;
};

FileChunks read_file(const TextFile& file, const text::Tokenizer& tokenizer,
                     std::span<const int32_t> prefix, const CorpusOptions& options,
                     std::vector<std::vector<int32_t>>* plain) {
  FileChunks out;
  std::string text = read_text_file(file.path, kMaxTextBytes);
  out.counts.path = file.path;
  out.counts.bytes = static_cast<int64_t>(text.size());
  out.counts.sha256 = sha256_hex(std::as_bytes(std::span(text)));
  for (const Document& document : documents_of(file.path, std::move(text))) {
    plain->push_back(plain_tokens(document, tokenizer));
    const std::vector<int32_t>& tokens = plain->back();
    out.counts.tokens += static_cast<int64_t>(tokens.size());
    ++out.counts.documents;
    std::vector<Chunk> chunks;
    if (document.messages.empty()) {
      chunks = cut_document(tokens, prefix, options);
    } else {
      try {
        chunks.push_back(conversation_chunk(document, tokenizer, options, out.counts));
      } catch (const Error& e) {
        throw e.with_place("conversation " + std::to_string(out.counts.documents))
            .with_file(file.path);
      }
      if (chunks.back().compared.empty()) chunks.pop_back();
    }
    if (chunks.empty()) ++out.counts.short_documents;
    std::move(chunks.begin(), chunks.end(), std::back_inserter(out.chunks));
  }
  return out;
}

// Keeps one chunk of each file in turn until there are enough positions.
void keep_first(std::vector<FileChunks>& files, int64_t max_positions) {
  std::vector<size_t> kept(files.size(), 0);
  int64_t positions = 0;
  for (size_t row = 0;; ++row) {
    bool any = false;
    for (size_t f = 0; f < files.size() && positions < max_positions; ++f) {
      if (row >= files[f].chunks.size()) continue;
      positions += static_cast<int64_t>(files[f].chunks[row].compared.size());
      ++kept[f];
      any = true;
    }
    if (!any) break;
  }
  for (size_t f = 0; f < files.size(); ++f) files[f].chunks.resize(kept[f]);
}

int32_t domain_index(const TextFile& file, std::vector<std::string>& domains) {
  const std::string name =
      file.domain.empty() ? std::filesystem::path(file.path).stem().string() : file.domain;
  const auto found = std::find(domains.begin(), domains.end(), name);
  const auto index = static_cast<int32_t>(found - domains.begin());
  if (found == domains.end()) domains.push_back(name);
  return index;
}

std::vector<int32_t> chunk_prefix(const text::Tokenizer& tokenizer, const CorpusOptions& options) {
  if (!options.chat) return {tokenizer.vocab().special.bos};
  const text::Message request = text::text_message(text::Role::kUser, kRequest);
  text::ChatOptions chat;
  chat.small_family = options.small_family;
  return text::render_chat(tokenizer, std::span(&request, 1), chat);
}

}  // namespace

TextFile parse_text_file(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals != std::string::npos && is_domain(std::string_view(argument).substr(0, equals))) {
    return {argument.substr(equals + 1), argument.substr(0, equals)};
  }
  return {argument, {}};
}

int64_t Corpus::positions() const {
  int64_t n = 0;
  for (const Chunk& chunk : chunks) n += static_cast<int64_t>(chunk.compared.size());
  return n;
}

std::vector<Chunk> cut_document(std::span<const int32_t> document, std::span<const int32_t> prefix,
                                const CorpusOptions& options) {
  CHECK(1 <= options.min_context && options.min_context < options.context);
  const auto lead = static_cast<int64_t>(prefix.size());
  const int64_t most = options.context - lead;
  if (most < options.min_context) {
    throw Error({"the context does not hold the template and something to compare",
                 {},
                 "--context",
                 "at least " + std::to_string(lead + options.min_context),
                 std::to_string(options.context),
                 {}});
  }
  std::vector<Chunk> chunks;
  const auto size = static_cast<int64_t>(document.size());
  for (int64_t begin = 0; begin < size; begin += most) {
    const int64_t n = std::min(most, size - begin);
    if (n < options.min_context) break;
    Chunk chunk;
    chunk.tokens.assign(prefix.begin(), prefix.end());
    chunk.tokens.insert(chunk.tokens.end(), document.begin() + begin, document.begin() + begin + n);
    for (int64_t i = options.min_context - 1; i < n; ++i) {
      chunk.compared.push_back(static_cast<int32_t>(lead + i - 1));
    }
    const int64_t prompt = std::max(options.min_context - 1, std::min(kPromptTokens, n / 2));
    chunk.prompt = static_cast<int32_t>(lead + prompt);
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

std::vector<int32_t> model_turn_positions(std::span<const int32_t> tokens,
                                          const text::Tokenizer& tokenizer) {
  const text::SpecialIds& special = tokenizer.vocab().special;
  constexpr std::string_view kHeader = "model\n";
  std::vector<int32_t> positions;
  bool in_turn = false;
  std::string header;  // of the turn that is open, until it is complete
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == special.turn_begin) {
      in_turn = true;
      header.clear();
      continue;
    }
    if (!in_turn) continue;
    const bool is_body = header.size() >= kHeader.size();
    if (is_body && header.starts_with(kHeader)) positions.push_back(static_cast<int32_t>(i) - 1);
    if (tokens[i] == special.turn_end) {
      in_turn = false;
    } else if (!is_body) {
      tokenizer.append_bytes(tokens[i], false, &header);
    }
  }
  return positions;
}

Corpus read_corpus(std::span<const TextFile> files, const text::Tokenizer& tokenizer,
                   const CorpusOptions& options) {
  if (tokenizer.vocab().special.bos == text::kNoToken) throw Error("the tokenizer has no <bos>");
  const std::vector<int32_t> prefix = chunk_prefix(tokenizer, options);
  Corpus corpus;
  std::vector<FileChunks> read;
  for (const TextFile& file : files) {
    read.push_back(read_file(file, tokenizer, prefix, options, &corpus.documents));
    const int32_t domain = domain_index(file, corpus.domains);
    read.back().counts.domain = domain;
    for (Chunk& chunk : read.back().chunks) chunk.domain = domain;
  }
  if (options.max_positions > 0) keep_first(read, options.max_positions);
  for (FileChunks& file : read) {
    std::move(file.chunks.begin(), file.chunks.end(), std::back_inserter(corpus.chunks));
    corpus.files.push_back(std::move(file.counts));
  }
  if (corpus.chunks.empty()) {
    int64_t tokens = 0;
    for (const TextCounts& file : corpus.files) tokens += file.tokens;
    throw Error({"the text is too short to compare anything",
                 files.empty() ? "" : files.front().path,
                 {},
                 "at least " + std::to_string(options.min_context) + " tokens",
                 std::to_string(tokens) + " tokens",
                 {}});
  }
  return corpus;
}

std::vector<std::vector<int32_t>> read_documents(const std::string& path,
                                                 const text::Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> documents;
  for (const Document& d : documents_of(path, read_text_file(path, kMaxTextBytes))) {
    documents.push_back(plain_tokens(d, tokenizer));
  }
  return documents;
}

}  // namespace carat::audit
