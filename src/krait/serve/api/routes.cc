// The table of routes.
#include "krait/serve/api/api.h"

namespace krait::serve {

const std::vector<Route>& routes() {
  static const std::vector<Route> kRoutes = {
      {"POST", "/generate", "Goes on from a prompt, alone or in a conversation", "generate", "generated", {404, 409}},
      {"POST", "/v1/completions", "OpenAI's text completions", "completion", "completion", {404}},
      {"POST", "/v1/chat/completions", "OpenAI's chat completions", "chat", "chat_completion", {404}},
      {"POST",
       "/v1/responses",
       "OpenAI's responses; previous_response_id goes on from the state behind that response",
       "response",
       "response",
       {404, 409}},
      {"GET",
       "/v1/streams/{response_id}",
       "Goes on with a broken stream, after the event named in Last-Event-ID",
       "",
       "stream",
       {404, 409}},
      {"GET",
       "/v1/models",
       "The model that this server runs, and its adapters, each as a model of its own",
       "",
       "models",
       {}},
      {"GET", "/v1/models/{model}", "One of them, by its name", "", "model", {404}},
      {"POST", "/tokenize", "Text to token ids", "tokenize", "tokens", {}},
      {"POST", "/detokenize", "Token ids to text", "detokenize", "text", {}},
      {"GET", "/v1/states", "Conversations, last used first", "", "conversations", {}, true, {kLimit}},
      {"GET", "/v1/states/{conversation_id}", "A conversation, turn by turn", "", "conversation", {404}},
      {"DELETE", "/v1/states/{conversation_id}", "Forgets a conversation", "", "deleted", {404, 409}},
      {"GET", "/v1/states/{conversation_id}/file", "Its state, as a state file", "", "binary", {404}, true, {kTurns}},
      {"POST",
       "/v1/states/{conversation_id}",
       "A state file as a new conversation",
       "binary",
       "conversation",
       {409, 413}},
      {"POST",
       "/v1/states/{conversation_id}/fork",
       "A new conversation with the same beginning",
       "fork",
       "conversation",
       {404, 409}},
      {"POST", "/v1/states/{conversation_id}/rewind", "Cuts its last turns off", "rewind", "conversation", {404, 409}},
      {"GET", "/health", "Whether the server works", "", "health", {}, false},
      {"GET", "/ready", "Whether it takes requests", "", "health", {}, false},
      {"GET", "/metrics", "For Prometheus", "", "metrics", {}},
      {"GET", "/openapi.json", "This description", "", "openapi", {}, false},
      {"GET", "/", "A page to talk to the model", "", "page", {}, false},
      {"GET", "/page.css", "Its style", "", "style", {}, false},
      {"GET", "/page.js", "Its program", "", "script", {}, false},
  };
  return kRoutes;
}

}  // namespace krait::serve
