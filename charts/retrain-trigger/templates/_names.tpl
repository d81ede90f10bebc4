{{/* Name of the trigger and of its Service. */}}
{{- define "retrain-trigger.name" -}}
{{- .Values.nameOverride | default "crispline-retrain-trigger" -}}
{{- end }}

{{/* Address of the trigger. */}}
{{- define "retrain-trigger.url" -}}
{{- printf "http://%s.%s.svc.%s:8080" (include "retrain-trigger.name" .) .Release.Namespace .Values.clusterDomain -}}
{{- end }}

{{/* What every object of the release can be selected by. */}}
{{- define "retrain-trigger.instanceLabels" -}}
app.kubernetes.io/name: retrain-trigger
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What the trigger's pods can be selected by. */}}
{{- define "retrain-trigger.selector" -}}
{{ include "retrain-trigger.instanceLabels" . }}
app.kubernetes.io/component: trigger
{{- end }}

{{/* Labels of every object. */}}
{{- define "retrain-trigger.labels" -}}
{{ include "retrain-trigger.instanceLabels" . }}
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

{{/* Reference of the image. */}}
{{- define "retrain-trigger.image" -}}
{{- $images := .Values.images -}}
{{- $name := printf "%s/%s" $images.registry $images.pipeline.repository -}}
{{- if $images.pipeline.digest }}{{ $name }}@{{ $images.pipeline.digest }}{{ else }}{{ $name }}:{{ $images.pipeline.tag | default $images.tag }}{{ end -}}
{{- end }}

{{/* "true" where objects of prometheus-operator are wanted. */}}
{{- define "retrain-trigger.prometheusOperator" -}}
{{- $wanted := .Values.monitoring.prometheusOperator -}}
{{- if or (eq $wanted "always") (and (eq $wanted "auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}true{{- end -}}
{{- end }}

{{/* Labels of one alert. Takes (dict "root" $ "severity" "..."). */}}
{{- define "retrain-trigger.alertLabels" -}}
severity: {{ .severity }}
usecase: {{ .root.Values.usecase | quote }}
environment: {{ .root.Values.environment | quote }}
{{- with .root.Values.monitoring.alerts.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Security of a pod of ours: what the level `restricted` asks, unless the values say otherwise. */}}
{{- define "retrain-trigger.podSecurity" -}}
{{- if kindIs "invalid" .Values.podSecurityContext -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 0
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- else -}}
{{ toYaml .Values.podSecurityContext }}
{{- end -}}
{{- end }}

{{- define "retrain-trigger.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
