{{/* Name of the controller and of its Service. */}}
{{- define "canary-controller.name" -}}
{{- .Values.nameOverride | default "crispline-canary-controller" -}}
{{- end }}

{{/* Address of the controller. */}}
{{- define "canary-controller.url" -}}
{{- printf "http://%s.%s.svc.%s:8080" (include "canary-controller.name" .) .Release.Namespace .Values.clusterDomain -}}
{{- end }}

{{/* Name of the headless Service of one predictor's pods. Takes (dict "root" $ "usecase" "..." "predictor" "..."). */}}
{{- define "canary-controller.podsName" -}}
{{- printf "%s-%s-%s" (include "canary-controller.name" .root) (.usecase | replace "_" "-") .predictor -}}
{{- end }}

{{/* What every object of the release can be selected by. */}}
{{- define "canary-controller.instanceLabels" -}}
app.kubernetes.io/name: canary-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What the controller's pod can be selected by. */}}
{{- define "canary-controller.selector" -}}
{{ include "canary-controller.instanceLabels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{/* Labels of every object. */}}
{{- define "canary-controller.labels" -}}
{{ include "canary-controller.instanceLabels" . }}
app.kubernetes.io/part-of: crispline
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
crispline.io/environment: {{ .Values.environment | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the pods of charts/model-server of this environment can be selected by. */}}
{{- define "canary-controller.predictors" -}}
app.kubernetes.io/name: model-server
app.kubernetes.io/component: predictor
crispline.io/environment: {{ .Values.environment | quote }}
{{- end }}

{{/* Name of the Application of one use case. Takes (dict "root" $ "usecase" "..."). */}}
{{- define "canary-controller.application" -}}
{{- .root.Values.argocd.application | replace "{environment}" .root.Values.environment | replace "{usecase}" .usecase | replace "_" "-" -}}
{{- end }}

{{/* Configuration of the controller: components.deployment.canary.options.ControllerOptions. */}}
{{- define "canary-controller.options" -}}
{{- $usecases := list -}}
{{- range $usecase := .Values.usecases -}}
{{- $calls := dict "kind" $.Values.calls.source "histogram" $.Values.calls.histogram -}}
{{- if eq $.Values.calls.source "prometheus" -}}
{{- $selector := $.Values.calls.prometheus.selector -}}
{{- if eq $.Values.calls.histogram "executor" -}}
{{- $selector = merge (dict "deployment_name" (printf "%s-model" ($usecase | replace "_" "-"))) $selector -}}
{{- end -}}
{{- $calls = merge $calls (dict "url" $.Values.calls.prometheus.url "selector" $selector) -}}
{{- else -}}
{{- $addresses := dict -}}
{{- range $predictor := list "default" "canary" "shadow" -}}
{{- $service := include "canary-controller.podsName" (dict "root" $ "usecase" $usecase "predictor" $predictor) -}}
{{- $_ := set $addresses $predictor (printf "http://%s.%s.svc.%s:%v%s" $service $.Release.Namespace $.Values.clusterDomain $.Values.calls.pods.port $.Values.calls.pods.path) -}}
{{- end -}}
{{- $calls = merge $calls (dict "addresses" $addresses) -}}
{{- end -}}
{{- $watched := dict "usecase" $usecase "calls" $calls "rule" $.Values.rule -}}
{{- if $.Values.argocd.enabled -}}
{{- $watched = merge $watched (dict "argocd" (dict "application" (include "canary-controller.application" (dict "root" $ "usecase" $usecase)) "namespace" $.Values.argocd.namespace)) -}}
{{- end -}}
{{- $usecases = append $usecases $watched -}}
{{- end -}}
{{- dict "environment" .Values.environment "interval_seconds" .Values.intervalSeconds "author_name" .Values.author.name "author_address" .Values.author.address "usecases" $usecases | toPrettyJson -}}
{{- end }}

{{/* Reference of the image. */}}
{{- define "canary-controller.image" -}}
{{- $images := .Values.images -}}
{{- $name := printf "%s/%s" $images.registry $images.pipeline.repository -}}
{{- if $images.pipeline.digest }}{{ $name }}@{{ $images.pipeline.digest }}{{ else }}{{ $name }}:{{ $images.pipeline.tag | default $images.tag }}{{ end -}}
{{- end }}

{{/* "true" where objects of prometheus-operator are wanted. */}}
{{- define "canary-controller.prometheusOperator" -}}
{{- $wanted := .Values.monitoring.prometheusOperator -}}
{{- if or (eq $wanted "always") (and (eq $wanted "auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}true{{- end -}}
{{- end }}

{{/* Labels of one alert. Takes (dict "root" $ "severity" "..."). */}}
{{- define "canary-controller.alertLabels" -}}
severity: {{ .severity }}
environment: {{ .root.Values.environment | quote }}
{{- with .root.Values.monitoring.alerts.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Security of a pod of ours: what the level `restricted` asks, unless the values say otherwise. */}}
{{- define "canary-controller.podSecurity" -}}
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

{{/*
The pod of the controller, and of its test, which sees what the controller sees.
Takes (dict "root" $ "name" "<container>" "more" (list <arguments>) "probes" true "resources" {...}).
*/}}
{{- define "canary-controller.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "canary-controller.name" .root }}
# Where Argo CD is asked, the token comes as a volume.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "canary-controller.podSecurity" .root | nindent 2 }}
{{- with $values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.scheduling.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.scheduling.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ include "canary-controller.image" .root }}
    imagePullPolicy: {{ $values.images.pullPolicy }}
    args:
      - components.deployment.canary
      - --config=/etc/crispline-canary/controller.json
      {{- range .more }}
      - {{ . }}
      {{- end }}
    env:
      - {name: CRISPLINE_PLATFORM, value: /etc/crispline/platform.json}
      - {name: HOME, value: /tmp}
      {{- with $values.objectStore.endpoint }}
      - {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
      {{- if hasPrefix "http://" . }}
      - {name: AWS_ALLOW_HTTP, value: "true"}
      {{- end }}
      {{- end }}
      - {name: AWS_REGION, value: {{ $values.objectStore.region | quote }}}
      - {name: AWS_DEFAULT_REGION, value: {{ $values.objectStore.region | quote }}}
    {{- if or $values.objectStore.existingSecret $values.git.existingSecret }}
    envFrom:
      {{- with $values.objectStore.existingSecret }}
      - secretRef: {name: {{ . }}}
      {{- end }}
      {{- with $values.git.existingSecret }}
      - secretRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
    {{- if .probes }}
    ports:
      - {name: http, containerPort: 8080, protocol: TCP}
    # Both ask the process alone: a repository or a log that is away is no reason to restart it.
    startupProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 20
      timeoutSeconds: 10
      failureThreshold: 3
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    resources:
      {{- toYaml .resources | nindent 6 }}
    volumeMounts:
      - {name: platform, mountPath: /etc/crispline, readOnly: true}
      - {name: options, mountPath: /etc/crispline-canary, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if $values.argocd.enabled }}
      - {name: kubernetes-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
      {{- end }}
      {{- if $values.sharedVolume.existingClaim }}
      - {name: shared, mountPath: {{ $values.sharedVolume.mountPath }}}
      {{- end }}
volumes:
  - name: platform
    configMap: {name: {{ $values.platform.configMap }}}
  - name: options
    configMap: {name: {{ include "canary-controller.name" .root }}}
  # The copy of the GitOps repository; it is made anew after a restart.
  - name: tmp
    emptyDir: {}
  {{- if $values.argocd.enabled }}
  - name: kubernetes-token
    projected:
      defaultMode: 0440
      sources:
        - serviceAccountToken: {path: token, expirationSeconds: 3600}
        - configMap:
            name: kube-root-ca.crt
            items:
              - {key: ca.crt, path: ca.crt}
        - downwardAPI:
            items:
              - path: namespace
                fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}
  {{- end }}
  {{- with $values.sharedVolume.existingClaim }}
  - name: shared
    persistentVolumeClaim: {claimName: {{ . }}}
  {{- end }}
{{- end }}
