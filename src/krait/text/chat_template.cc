#include "krait/text/chat_template.h"

#include <fmt/format.h>

#include <array>

#include "krait/core/error.h"
#include "krait/text/jinja/parser.h"
#include "krait/text/jinja/render.h"

namespace krait::text {
namespace {

class JinjaTemplate final : public ChatTemplate {
 public:
  JinjaTemplate(const std::string& source, std::string bos, std::string eos)
      : body_(jinja::parse_template(source)), bos_(std::move(bos)), eos_(std::move(eos)) {}

  std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const override {
    jinja::Context ctx;
    ctx.steps += static_cast<int64_t>(messages.size()) * 10'000;
    jinja::Items list;
    for (const Message& m : messages) {
      ctx.steps += static_cast<int64_t>(m.content.size());  // a template may look at a text a few times
      list.push_back(jinja::Value::dict(ctx, {{"role", jinja::Value(m.role)}, {"content", jinja::Value(m.content)}}));
    }
    jinja::Value all = jinja::Value::list(ctx, std::move(list));
    // Names as transformers passes them; tools and documents are there, and none.
    return jinja::render_template(body_, ctx,
                                  {{"messages", std::move(all)},
                                   {"add_generation_prompt", jinja::Value(add_generation_prompt)},
                                   {"tools", {}},
                                   {"documents", {}},
                                   {"bos_token", jinja::Value(bos_)},
                                   {"eos_token", jinja::Value(eos_)}});
  }

 private:
  jinja::Body body_;
  std::string bos_, eos_;
};

struct Named {
  std::string_view name, source;
};

// Small templates of our own for the formats that models were published with.
constexpr std::array<Named, 7> kNamed = {{
    {"chatml",
     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
     "<|eot_id|>{% endfor %}"
     "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"},
    {"mistral",
     "{% set ns = namespace(system='', users=0) %}{{ bos_token }}"
     "{% for m in messages %}{% if m.role == 'system' %}"
     "{% if not loop.first %}{{ raise_exception('the system message must come first') }}{% endif %}"
     "{% set ns.system = m.content ~ '\n\n' %}"
     "{% else %}{% if (m.role == 'user') != (ns.users % 2 == 0) %}"
     "{{ raise_exception('user and assistant must alternate, user first') }}{% endif %}{% set ns.users = ns.users + 1 "
     "%}"
     "{% if m.role == 'user' %}[INST] {{ ns.system ~ m.content }} [/INST]{% set ns.system = '' %}"
     "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endif %}{% endfor %}"},
    {"zephyr",
     "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
     "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},
    {"falcon",
     "{% for m in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
     "{{ m.role | capitalize }}: {{ m.content | trim }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"},
    {"gemma",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m.role == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}"
     "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
     "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"},
    {"plain", "{% for m in messages %}{{ m.content }}{% endfor %}"},
}};

// The text of a token that may be missing.
std::string token_text(const Tokenizer& t, std::optional<int32_t> id) {
  return id ? t.token_bytes(*id) : std::string();
}

}  // namespace

std::unique_ptr<ChatTemplate> compile_chat_template(const std::string& source, const std::string& bos,
                                                    const std::string& eos) {
  return std::make_unique<JinjaTemplate>(source, bos, eos);
}

std::unique_ptr<ChatTemplate> named_chat_template(const std::string& name, const std::string& bos,
                                                  const std::string& eos) {
  std::string known;
  for (const Named& n : kNamed) {
    if (n.name == name) return compile_chat_template(std::string(n.source), bos, eos);
    known += (known.empty() ? "" : ", ") + std::string(n.name);
  }
  fail_usage(fmt::format("[chat template] '{}' is not one of: {}", name, known));
}

std::unique_ptr<ChatTemplate> choose_chat_template(const Tokenizer& t, const std::optional<std::string>& name) {
  const std::vector<int32_t> eos_ids = t.eos_ids();
  const std::string bos = token_text(t, t.bos_id());
  const std::string eos = token_text(t, eos_ids.empty() ? std::nullopt : std::optional(eos_ids.front()));
  if (name) return named_chat_template(*name, bos, eos);
  const std::string own = t.chat_template();
  return own.empty() ? nullptr : compile_chat_template(own, bos, eos);
}

}  // namespace krait::text
