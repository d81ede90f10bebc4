{{/* Name of the server, of its Service and of the SeldonDeployment: `<usecase>-model`. */}}
{{- define "model-server.name" -}}
{{- .Values.nameOverride | default (printf "%s-model" (.Values.usecase | default "unnamed" | replace "_" "-")) -}}
{{- end }}

{{/* Name of what belongs to one predictor. Takes (dict "root" $ "predictor" "canary"). */}}
{{- define "model-server.predictorName" -}}
{{- printf "%s-%s" (include "model-server.name" .root) .predictor -}}
{{- end }}

{{/* Address of a Service of this release. Takes (dict "root" $ "service" "..."). */}}
{{- define "model-server.host" -}}
{{- printf "%s.%s.svc.%s" .service .root.Release.Namespace .root.Values.clusterDomain -}}
{{- end }}

{{/* What every object of the release can be selected by. */}}
{{- define "model-server.instanceLabels" -}}
app.kubernetes.io/name: model-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "model-server.labels" -}}
{{ include "model-server.instanceLabels" . }}
app.kubernetes.io/part-of: crispline
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
crispline.io/usecase: {{ .Values.usecase | quote }}
crispline.io/environment: {{ .Values.environment | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the pods of one predictor can be selected by. Takes (dict "root" $ "predictor" "..."). */}}
{{- define "model-server.predictorSelector" -}}
{{ include "model-server.instanceLabels" .root }}
app.kubernetes.io/component: predictor
crispline.io/predictor: {{ .predictor }}
{{- end }}

{{/* Labels of the pods of one predictor. Takes (dict "root" $ "predictor" "..." "release" "..."). */}}
{{- define "model-server.predictorLabels" -}}
{{ include "model-server.labels" .root }}
app.kubernetes.io/component: predictor
crispline.io/predictor: {{ .predictor }}
crispline.io/release: {{ .release | trunc 12 | quote }}
{{- end }}

{{/* Annotations of the pods of one predictor; what stands here makes new pods when it changes. Takes the same. */}}
{{- define "model-server.predictorAnnotations" -}}
crispline.io/release: {{ .release | quote }}
{{- if and (eq .predictor "default") .root.Values.model_version }}
crispline.io/model-version: {{ .root.Values.model_version | quote }}
{{- end }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Reference of an image. Takes (dict "images" .Values.images "image" .Values.images.serving). */}}
{{- define "model-server.image" -}}
{{- $name := printf "%s/%s" .images.registry .image.repository -}}
{{- if .image.digest }}{{ $name }}@{{ .image.digest }}{{ else }}{{ $name }}:{{ .image.tag | default .images.tag }}{{ end -}}
{{- end }}

{{/*
The predictors as a JSON list, the champion first: {name, release, replicas, weight, shadow}. There are never more than two.
*/}}
{{- define "model-server.predictors" -}}
{{- $canary := .Values.canary | default dict -}}
{{- $replicas := int .Values.replicas -}}
{{- $more := int (.Values.canaryReplicas | default .Values.replicas) -}}
{{- $release := .Values.release -}}
{{- if not $canary.release -}}
{{- list (dict "name" "default" "release" $release "replicas" $replicas "weight" 100 "shadow" false) | toJson -}}
{{- else if $canary.shadow -}}
{{- list (dict "name" "default" "release" $release "replicas" $replicas "weight" 100 "shadow" false) (dict "name" "shadow" "release" $canary.release "replicas" $more "weight" 0 "shadow" true) | toJson -}}
{{- else -}}
{{- $weight := int ($canary.weight | default 0) -}}
{{- list (dict "name" "default" "release" $release "replicas" $replicas "weight" (sub 100 $weight) "shadow" false) (dict "name" "canary" "release" $canary.release "replicas" $more "weight" $weight "shadow" false) | toJson -}}
{{- end -}}
{{- end }}

{{/* "true" where objects of prometheus-operator are wanted. */}}
{{- define "model-server.prometheusOperator" -}}
{{- $wanted := .Values.monitoring.prometheusOperator -}}
{{- if or (eq $wanted "always") (and (eq $wanted "auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}true{{- end -}}
{{- end }}

{{/* "true" where the executor's container is completed by a MutatingAdmissionPolicy. */}}
{{- define "model-server.admissionPolicy" -}}
{{- $wanted := .Values.seldon.executor.admissionPolicy -}}
{{- $possible := semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- if and (eq .Values.serving.mode "seldon") (or (eq $wanted "always") (and (eq $wanted "auto") $possible)) -}}true{{- end -}}
{{- end }}

{{/* "true" where a predictor has two pods or more, so that one may be taken away. Takes (dict "root" $ "predictor" ...). */}}
{{- define "model-server.hasBudget" -}}
{{- $fewest := ternary .predictor.replicas .root.Values.autoscaling.minReplicas (eq .root.Values.autoscaling.kind "none") -}}
{{- if gt (int $fewest) 1 -}}true{{- end -}}
{{- end }}

{{/* Labels that the rules and dashboards go by, for every scraped series. */}}
{{- define "model-server.relabelings" -}}
- {action: replace, targetLabel: usecase, replacement: {{ .Values.usecase | quote }}}
- {action: replace, targetLabel: environment, replacement: {{ .Values.environment | quote }}}
- {action: replace, sourceLabels: [__meta_kubernetes_pod_label_crispline_io_predictor], targetLabel: predictor}
{{- end }}

{{/* Labels of one alert. Takes (dict "root" $ "severity" "..."). */}}
{{- define "model-server.alertLabels" -}}
severity: {{ .severity }}
usecase: {{ .root.Values.usecase | quote }}
environment: {{ .root.Values.environment | quote }}
{{- with .root.Values.monitoring.alerts.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
