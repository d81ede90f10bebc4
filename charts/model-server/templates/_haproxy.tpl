{{/*
Configuration of the proxy that divides the requests. Every request is drawn on its own, so the share is binomial. One that failed before an
answer began is tried again, three times at most; that is safe, because it keeps its request id, under which the prediction log knows a
repetition.
*/}}
{{- define "model-server.haproxy" -}}
{{- $predictors := include "model-server.predictors" . | fromJsonArray -}}
{{- $canary := dict -}}
{{- range $predictors }}{{ if eq .name "canary" }}{{ $canary = . }}{{ end }}{{ end -}}
global
  log stdout format raw local0 notice
  maxconn 2000
  # What fits is kept until the answer began, so that it can be sent again.
  tune.bufsize 32768
  hard-stop-after 40s

resolvers cluster
  parse-resolv-conf
  hold valid 5s
  timeout resolve 1s
  timeout retry 1s

defaults
  mode http
  log global
  option dontlog-normal
  option http-keep-alive
  option http-buffer-request
  # An idle connection is closed with the answer to its next request, not under it, when the proxy ends.
  option idle-close-on-response
  timeout connect 2s
  timeout client 65s
  timeout server {{ .Values.splitter.haproxy.answerSeconds }}s
  timeout http-keep-alive 15s
  timeout http-request 30s
  timeout queue 5s
  retries 3
  retry-on conn-failure empty-response
  http-reuse safe
  default-server resolvers cluster init-addr last,libc,none resolve-prefer ipv4 max-reuse 100 pool-purge-delay 2s

frontend predictions
  bind :8000
  http-request set-header Seldon-Puid %[uuid()] unless { req.hdr(Seldon-Puid) -m found }
  # A caller may ask for one predictor by name, to look at it; everyone else is drawn.
  {{- if $canary }}
  use_backend canary if { req.hdr(X-Crispline-Predictor) -m str canary }
  use_backend default if { req.hdr(X-Crispline-Predictor) -m str default }
  use_backend canary if { rand(100) lt {{ $canary.weight }} }
  {{- end }}
  default_backend default
{{- range $predictors }}
{{- if not .shadow }}

backend {{ .name }}
  {{- $canarys := eq .name "canary" }}
  {{- if $canarys }}
  # While no pod of the canary is ready (it begins, it goes, it broke), the champion answers in its place, and the answer says so.
  option httpchk GET /ready
  option redispatch 1
  timeout check 5s
  http-response set-header X-Crispline-Predictor %[srv_name]
  {{- else }}
  http-response set-header X-Crispline-Predictor {{ .name }}
  {{- end }}
  server {{ .name }} {{ include "model-server.predictorAddress" (dict "root" $ "predictor" .name) }}
  {{- if $canarys }} check inter 1s fall 3 rise 1 observe layer4 error-limit 1 on-error mark-down
  server default {{ include "model-server.predictorAddress" (dict "root" $ "predictor" "default") }} backup
  {{- end }}
{{- end }}
{{- end }}

frontend health
  bind :8404
  http-request use-service prometheus-exporter if { path /metrics }
  http-request return status 200 content-type text/plain string up if { path /live }
  http-request deny deny_status 404
{{- end }}

{{/* Where one predictor answers. Takes (dict "root" $ "predictor" "..."). */}}
{{- define "model-server.predictorAddress" -}}
{{ include "model-server.host" (dict "root" .root "service" (include "model-server.predictorName" .)) }}:8000
{{- end }}
